"""What the tools share: configs, checkpoints to resume from, missing files."""

import argparse
import os
import re

import pytest
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.runner import save_checkpoint

from mmqnet.command_line import (
    add_arguments,
    check_checkpoint,
    load_config,
    resume,
    use_mixed_precision,
)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_arguments(parser)
    return parser.parse_args([str(a) for a in arguments])


@pytest.fixture(autouse=True)
def _local_rank(monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')  # set, so that it is removed again


def test_arguments_override_the_config(configs, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=7', 'a.b=[1,2]']
    config = load_config(parse(configs / 'quantized.py', *options), ('train_dataloader',))
    assert config.work_dir == str(tmp_path)
    assert config.train_cfg.max_epochs == 7
    assert config.a.b == [1, 2]
    assert config.launcher == 'none'


def test_paths_among_the_settings_keep_their_blanks(configs):
    options = ['--cfg-options', 'load_from=my runs/float.pth', 'a.b="x y"', 'n= 7', 'l=[a b,c]']
    config = load_config(parse(configs / 'quantized.py', *options), ())
    assert (config.load_from, config.a.b, config.n) == ('my runs/float.pth', 'x y', 7)
    assert config.l == ['ab', 'c']  # as MMEngine reads them


@pytest.mark.parametrize(
    'setting', ['model.quantization.include.5=neck', 'model.quantization.weight.levels.x=3']
)
def test_settings_that_do_not_fit_the_config(configs, setting):
    with pytest.raises(ValueError, match=r'^--cfg-options cannot be applied: [^\n]+$'):
        load_config(parse(configs / 'quantized.py', '--cfg-options', setting), ())


def test_work_dir_is_named_after_the_config(configs):
    assert load_config(parse(configs / 'float.py'), ()).work_dir == 'work_dirs/float'


def test_missing_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config file '.*no\.py' does not exist"):
        load_config(parse(tmp_path / 'no.py'), ())


def test_missing_annotations_name_key_and_file_and_what_to_do(configs):
    key = 'train_dataloader.dataset.dataset.ann_file'
    arguments = parse(configs / 'float.py', '--cfg-options', f'{key}=no.json')
    message = rf"`{key}`: '.*no\.json' does not exist: put the data set below .* or set `data_root`"
    with pytest.raises(FileNotFoundError, match=message):
        load_config(arguments, ('train_dataloader',))
    load_config(arguments, ('val_dataloader',))  # which is not read


def test_loaders_of_mmpretrain_are_completed(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text(
        "default_scope = 'mmpretrain'\n"
        "train_dataloader = dict(num_workers=0, dataset=dict(type='CustomDataset'))\n"
        'val_dataloader = dict(num_workers=2, pin_memory=False)\n'
    )
    config = load_config(parse(path), ())
    assert config.train_dataloader.collate_fn.type == 'default_collate'
    assert config.train_dataloader.persistent_workers is False
    assert config.val_dataloader.persistent_workers is True
    assert config.val_dataloader.pin_memory is False
    options = ['val_dataloader.num_workers=0', 'test_dataloader.batch_size=1']
    config = load_config(parse(path, '--cfg-options', *options), ())
    assert config.val_dataloader.persistent_workers is False
    assert config.test_dataloader.persistent_workers is False


class TestMixedPrecision:
    """The training itself is in `test_switches.py`."""

    @pytest.mark.parametrize('kind', [None, 'OptimWrapper', 'AmpOptimWrapper', OptimWrapper])
    def test_on_a_cpu_the_arguments_of_the_loss_scaler_go(self, kind):
        if get_device() != 'cpu':
            pytest.skip('there is a GPU')
        optim_wrapper = dict(loss_scale='dynamic', dtype='float16', clip_grad=dict(max_norm=1))
        if kind is not None:
            optim_wrapper['type'] = kind
        config = Config(dict(optim_wrapper=optim_wrapper))
        use_mixed_precision(config)
        expected = dict(type='mmqnet.BFloat16OptimWrapper', clip_grad=dict(max_norm=1))
        assert config.optim_wrapper == expected

    def test_without_an_optimizer_wrapper(self):
        with pytest.raises(ValueError, match='--amp needs `optim_wrapper` in the config'):
            use_mixed_precision(Config(dict()))

    def test_of_another_type(self):
        config = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
        message = r"`optim_wrapper\.type` should be 'OptimWrapper' for --amp, .*'ApexOptimWrapper'"
        with pytest.raises(ValueError, match=message):
            use_mixed_precision(config)
        assert config.optim_wrapper.type == 'ApexOptimWrapper'


class TestResume:
    def config(self, work_dir):
        return Config(dict(work_dir=str(work_dir), load_from='float.pth'))

    def save(self, folder, name, seconds=0, **content):
        """Writes a checkpoint as MMEngine does, ``seconds`` after the first one."""
        path = folder / name
        save_checkpoint(dict(state_dict={}, meta={}, message_hub={}, **content), str(path))
        os.utime(path, (seconds, seconds))
        return path

    def test_latest(self, tmp_path):
        path = self.save(tmp_path, 'epoch_1.pth', optimizer={})
        (tmp_path / 'last_checkpoint').write_text(str(path))
        config = self.config(tmp_path)
        resume(config, 'auto')
        assert config.resume
        assert config.load_from == str(path)

    @pytest.mark.parametrize(
        ('pointer', 'message'),
        [
            ('', 'is empty'),
            ('epoch_9.pth', r"names '.*epoch_9\.pth', which does not exist"),
            ('epoch_3.pth', r"names '.*epoch_3\.pth', which is truncated"),
        ],
    )
    def test_truncated_files(self, tmp_path, capsys, pointer, message):
        """The newest checkpoint that is complete and has an optimizer, with a line in the log."""
        self.save(tmp_path, 'epoch_1.pth', seconds=1, optimizer={})
        expected = self.save(tmp_path, 'epoch_2.pth', seconds=2, optimizer={})
        truncated = self.save(tmp_path, 'epoch_3.pth', seconds=3, optimizer={})
        truncated.write_bytes(truncated.read_bytes()[:-100])
        (tmp_path / 'epoch_4.pth').touch()
        self.save(tmp_path, 'best_epoch_3.pth', seconds=5)
        (tmp_path / 'last_checkpoint').write_text(pointer and str(tmp_path / pointer))
        config = self.config(tmp_path)
        resume(config, 'auto')
        assert config.load_from == str(expected)
        line = rf"`last_checkpoint` in '.*' {message}: resuming from the newest complete .*epoch_2"
        captured = capsys.readouterr()
        assert re.search(line, captured.out + captured.err)

    @pytest.mark.parametrize('others', [(), ('epoch_1.pth',), ('epoch_1.pth', 'epoch_3.pth')])
    def test_a_renamed_work_dir_is_not_taken_for_another_run(self, tmp_path, others):
        first, renamed = tmp_path / 'run', tmp_path / 'run.old'
        for folder, names in ((first, ('epoch_1.pth', 'epoch_3.pth')), (first, others)):
            if folder.exists():
                folder.rename(renamed)
            folder.mkdir()
            for seconds, name in enumerate(names):
                path = self.save(folder, name, seconds=seconds, optimizer={})
                (folder / 'last_checkpoint').write_text(str(path))
        config = self.config(renamed)
        resume(config, 'auto')
        assert config.load_from == str(renamed / 'epoch_3.pth')
        (renamed / 'epoch_3.pth').unlink()
        if 'epoch_3.pth' not in others:
            resume(config, 'auto')
            assert config.load_from == str(renamed / 'epoch_1.pth')

    def test_nothing_is_complete(self, tmp_path):
        (tmp_path / 'epoch_1.pth').touch()
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
        message = (
            r"which is truncated, and '.*' holds no complete checkpoint with an optimizer: name a"
        )
        with pytest.raises(ValueError, match=message):
            resume(self.config(tmp_path), 'auto')

    def test_given_but_truncated(self, tmp_path):
        path = self.save(tmp_path, 'epoch_1.pth', optimizer={})
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(
            ValueError, match=r"checkpoint '.*epoch_1\.pth' is truncated: its end is miss"
        ):
            resume(self.config(tmp_path), str(path))

    def test_before_the_first_checkpoint_the_run_starts_with_its_float_weights(self, tmp_path):
        config = self.config(tmp_path)
        resume(config, 'auto')
        assert not config.get('resume')
        assert config.load_from == 'float.pth'

    def test_given(self, tmp_path):
        path = self.save(tmp_path, 'epoch_1.pth')
        config = self.config(tmp_path)
        resume(config, str(path))
        assert config.resume
        assert config.load_from == str(path)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"checkpoint '.*no\.pth' does not exist"):
            resume(self.config(tmp_path), str(tmp_path / 'no.pth'))

    def test_a_folder_is_no_checkpoint(self, tmp_path):
        with pytest.raises(IsADirectoryError, match=r"'.*' is a folder: name one of its checkp"):
            resume(self.config(tmp_path), str(tmp_path))

    def test_addresses_are_left_to_mmengine(self):
        check_checkpoint('https://example.org/a.pth')
        check_checkpoint('torchvision://resnet18')
