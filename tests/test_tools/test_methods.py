"""The comparison of methods: its plan, its configs, its results, and one real training."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmqnet.models import QuantizationConfig

TOOLS = Path(__file__).parents[2] / 'tools'
BENCHMARKS = TOOLS / 'benchmarks'
CONDITIONS = dict(checkpoint='0123', cfg_options=[], torch='2')


@pytest.fixture(scope='module', autouse=True)
def on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.syspath_prepend(str(TOOLS / 'dataset_converters'))
        yield


@pytest.fixture
def plan():
    import comparison

    return comparison


@pytest.fixture
def results(tmp_path):
    from comparison_results import Results

    return Results(tmp_path / 'methods.json', CONDITIONS)


def test_first_seed_at_each_rate_and_others_at_the_best(plan, results):
    cell = plan.Cell('u', '2/2')
    runs = plan.missing_runs([cell], [7, 8, 9], results.scores())
    assert [(run.seed, run.rate) for run in runs] == [(7, rate) for rate in plan.RATES]
    for run, score in zip(runs, (0.5, 0.7, 0.6), strict=True):
        results.add(run, score, 1.0)
    runs = plan.missing_runs([cell], [7, 8, 9], results.scores())
    assert [(run.seed, run.rate) for run in runs] == [(8, plan.RATES[1]), (9, plan.RATES[1])]
    assert results.number_in([cell], [7, 8, 9]) == 3
    assert results.epochs_left([cell], [7, 8, 9]) == 2 * cell.epochs
    for run in runs:
        results.add(run, 0.71, 1.0)
    assert plan.missing_runs([cell], [7, 8, 9], results.scores()) == []
    assert results.summary(cell).scores == (0.7, 0.71, 0.71)
    assert results.epochs_left([cell], [7, 8, 9]) == 0


def test_methods_take_turns_at_each_rate(plan):
    cells = plan.cells_of(['u', 'LSQ'], ['2/2', '4/4'])
    runs = plan.missing_runs(cells, [0, 1], {})
    assert [(run.cell.bits, run.rate, run.cell.method) for run in runs] == [
        (bits, rate, method)
        for bits in ('2/2', '4/4')
        for rate in plan.RATES
        for method in ('u', 'LSQ')
    ]


def test_each_float_row_comes_once(plan):
    cells = plan.cells_of(['float', 'u', 'TWN'], ['2/32', '3/8', '2/2'])
    assert [(cell.method, cell.bits) for cell in cells] == [
        *(('float', '2 epochs'), ('u', '2/32'), ('TWN', '2/32'), ('u', '3/8')),
        *(('float', '4 epochs'), ('u', '2/2')),
    ]


def test_every_recipe_is_there(plan):
    cells = plan.cells_of(list(plan.METHODS), list(plan.EPOCHS))
    assert len(cells) == 4 * len(plan.EPOCHS) + 2
    for cell in cells:
        assert (plan.RECIPES / f'{plan.METHODS[cell.method][cell.bits]}.py').is_file()


@pytest.mark.parametrize('bits', ['2/2', '1/32'])
def test_configs_load(plan, tmp_path, bits):
    for cell in plan.cells_of(['float', *plan.METHODS], [bits]):
        run = plan.Run(cell, 3, 2e-3)
        file = tmp_path / f'{run.folder}.py'
        file.write_text(plan.config_text(run, Path('float.pth')))
        config = Config.fromfile(file)
        assert config.load_from == 'float.pth'
        assert config.randomness.seed == 3
        assert config.train_cfg.max_epochs == config.param_scheduler[0].total_steps == cell.epochs
        assert config.optim_wrapper.optimizer.lr == config.param_scheduler[0].eta_max == 2e-3
        if cell.method == 'float':
            assert config.model.type == 'SingleStageDetector'
            continue
        checked = QuantizationConfig.from_dict(config.model.quantization)
        has_temperature = config.default_hooks.temperature is not None
        assert has_temperature == (checked.weight.type == 'QuantizationNetwork')
        assert len(checked.weight.levels) <= 2 ** int(cell.bits[0])
        activations = cell.bits.partition('/')[2]
        expected = None if activations == '32' else 2 ** int(activations)
        assert (checked.activation and len(checked.activation.levels)) == expected


def test_results_are_read_again(plan, results, tmp_path):
    run = plan.Run(plan.Cell('LSQ', '2/2'), 0, 1e-3)
    results.add(run, 0.6, 2.0)
    again = type(results)(tmp_path / 'methods.json', CONDITIONS)
    assert again.scores() == {run.key: 0.6}
    assert again.minutes_per_epoch() == 0.5
    with pytest.raises(ValueError, match="made with checkpoint = '0123', not 'other'"):
        type(results)(tmp_path / 'methods.json', {**CONDITIONS, 'checkpoint': 'other'})
    (tmp_path / 'methods.json').write_text('{')
    with pytest.raises(ValueError, match='holds no results'):
        type(results)(tmp_path / 'methods.json', CONDITIONS)


def test_table_marks_the_first_and_what_is_within_its_spread(plan, results):
    from comparison_report import draw, table

    best = plan.RATES[0]
    scores = {
        ('float', '4 epochs'): (0.7, 0.7, 0.7),
        ('u', '2/2'): (0.63, 0.64, 0.65),
        ('LSQ', '2/2'): (0.625, 0.635, 0.645),
        ('paper', '2/2'): (0.5, 0.5, 0.5),
    }
    for (method, bits), of_seeds in scores.items():
        for rate in plan.RATES:
            results.add(
                plan.Run(plan.Cell(method, bits), 0, rate), of_seeds[0] - (rate - best), 1.0
            )
        for seed in (1, 2):
            results.add(plan.Run(plan.Cell(method, bits), seed, best), of_seeds[seed], 1.0)
    row = next(line for line in table(results).splitlines() if line.startswith('| 2/2'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[:3] == ['2/2 (4)', '0.700 ± 0.000', '**0.640 ± 0.010 (0.914)**']
    assert cells[3].endswith('~')
    assert cells[5] == '0.500 ± 0.000 (0.714)'
    assert cells[4] == cells[6] == ''
    assert draw(results).startswith(b'\x89PNG')


@pytest.fixture
def start(tmp_path):
    """A tiny data set and a float checkpoint, as arguments of the command."""
    from mmdet.registry import MODELS

    digits = pytest.importorskip('digits')
    data = tmp_path / 'digits'
    digits.convert(data, num_train=16, num_val=4, image_size=128, seed=1)
    settings = [f'{part}_dataloader.dataset.data_root={data}' for part in ('train', 'val', 'test')]
    settings += [
        f'{part}_evaluator.ann_file={data}/annotations/val.json' for part in ('val', 'test')
    ]
    config = Config.fromfile(TOOLS.parent / 'configs' / 'demo' / 'ssd_r18_digits.py')
    init_default_scope('mmdet')
    state = MODELS.build(config.model).state_dict()
    torch.save(dict(meta={}, state_dict=state), tmp_path / 'float.pth')
    settings += [f'default_hooks.{hook}.num_samples=16' for hook in ('calibration', 'batch_norm')]
    return argparse.Namespace(checkpoint=tmp_path / 'float.pth', cfg_options=settings)


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(plan, start, tmp_path):
    from comparison_results import Results, describe

    out_dir, cell = tmp_path / 'out', plan.Cell('TWN', '2/32')
    kept = Results(out_dir / 'methods.json', describe(start))
    for rate in plan.RATES[1:]:
        kept.add(plan.Run(cell, 0, rate), 0.5, 1.0)
    command = [sys.executable, '-W', 'ignore', str(BENCHMARKS / 'methods.py')]
    command += ['--methods', 'TWN', '--bits', '2/32', '--seeds', '0', '--out-dir', str(out_dir)]
    command += ['--checkpoint', str(start.checkpoint), '--cfg-options', *start.cfg_options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[2/3, about 0.0 h left] TWN 2/32 seed 0 rate 0.001\n' in done.stdout
    runs = json.loads((out_dir / 'methods.json').read_text())['runs']
    assert [run['rate'] for run in runs] == [0.002, 0.004, 0.001]
    assert '| 2/32 (2) |  |  |  |  |  |  | **0.500** |' in (out_dir / 'methods.md').read_text()
    assert (out_dir / 'methods.png').exists()
