"""The paper's ablations on the demo: configs, tables, picture, and one real training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from comparison_fixtures import CONDITIONS, ROOT
from mmengine.config import Config

from mmqnet.models import QuantizationConfig


@pytest.fixture
def plan(benchmarks_on_path):
    import ablation_plan

    return ablation_plan


@pytest.fixture
def results(benchmarks_on_path, tmp_path):
    from ablation_report import AblationResults

    return AblationResults(tmp_path / 'ablation.json', CONDITIONS)


@pytest.fixture
def load(plan, tmp_path):
    def load(name):
        file = tmp_path / f'{name}.py'
        file.write_text(plan.Run(name, 3, 2e-3).config_text(Path('float.pth')))
        return Config.fromfile(file)

    return load


def fill(plan, results, scores, **gap):
    for name, of_seeds in scores.items():
        for seed, score in enumerate(of_seeds):
            results.add(plan.Run(name, seed, 2e-3), dict(mAP=score, minutes=1.0, **gap))


def cells_of(table, beginning):
    row = next(line for line in table.splitlines() if line.startswith(beginning))
    return [cell.strip() for cell in row.strip('|').split('|')]


@pytest.mark.parametrize(
    ('name', 'key', 'value'),
    [
        ('w2-a32-uniform', 'thresholds', 'uniform'),
        ('w3-a32-uniform', 'thresholds', 'uniform'),
        ('w2-a32-shared', 'granularity', 'model'),
    ],
)
def test_one_thing_differs(load, name, key, value):
    changed, base = load(name).to_dict(), load(name[:6]).to_dict()
    weights = []
    for config in (changed, base):
        QuantizationConfig.from_dict(config['model']['quantization'])
        del config['quantization']  # the recipe's, of which the model has a copy
        weights.append(config['model']['quantization']['weight'])
    assert weights[0].pop(key) == value
    assert weights[1].pop(key, 'layer') in ('kmeans', 'layer')
    assert changed == base


@pytest.mark.parametrize(
    ('name', 'longer'), [('w2-a32-scratch', False), ('w2-a32-scratch-long', True)]
)
def test_scratch_learns_as_the_float_model_did(load, name, longer):
    from comparison_configs import float_config

    trained = float_config()
    config = load(name)
    assert config.load_from is None
    assert config.default_hooks.calibration.from_scratch
    rate = trained.optim_wrapper.optimizer.lr
    assert config.optim_wrapper.optimizer.lr == config.param_scheduler[0].eta_max == rate
    epochs = 2 + (trained.train_cfg.max_epochs if longer else 0)
    assert config.train_cfg.max_epochs == config.param_scheduler[0].total_steps == epochs


def test_gap_is_measured_with_the_statistics_of_the_training(load):
    for name, ends in (('gap-growing', (10, 100)), ('gap-10', (10, 10)), ('gap-100', (100, 100))):
        config = load(name)
        hooks = config.default_hooks
        assert tuple(hooks.temperature.weight.values()) == ends
        assert hooks.gap.type == 'mmqnet.SoftHardGapHook'
        assert hooks.batch_norm is None
        assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (8, 1)
        assert config.load_from == 'float.pth'


def test_all_rows_at_the_first_seed_come_first(plan, results):
    to_do = plan.AblationPlan(['w2-a32', 'gap-10'], [0, 1], 2e-3)
    runs = to_do.missing(results.scores())
    assert [(run.name, run.seed) for run in runs] == [
        *(('w2-a32', 0), ('gap-10', 0), ('w2-a32', 1), ('gap-10', 1)),
    ]
    results.add(runs[1], dict(mAP=0.5, minutes=1.0))
    assert to_do.left(results.scores()) == [2, 2, 8]
    assert to_do.total({}) == 4


def test_order_is_held_against_the_papers(plan, results):
    from ablation_report import tables

    fill(
        plan,
        results,
        {
            'w2-a32': (0.60, 0.61, 0.62),
            'w2-a32-uniform': (0.605, 0.61, 0.60),
            'w2-a32-shared': (0.65, 0.65, 0.65),
            'w2-a32-scratch': (0.4, 0.4, 0.4),
        },
    )
    table = tables(results)
    assert cells_of(table, '| 5 | 2/32') == [
        *('5', '2/32', 'k-means', '0.610 ± 0.010', 'linear', '0.605 ± 0.005', '+0.5'),
        *('0.3 to 1.2', 'undecided'),
    ]
    assert cells_of(table, '| 6')[5:] == ['0.650 ± 0.000', '-4.0', '1.0', '**the other way**']
    assert cells_of(table, '| 7')[5:] == ['0.400 ± 0.000', '+21.0', '15', "the paper's"]
    assert cells_of(table, '| 5 | 3')[3:] == ['', 'linear', '', '', '0.3 to 1.2', '']


def test_one_seed_has_no_spread(plan, results):
    from ablation_report import tables

    fill(plan, results, {'w3-a32': (0.703,), 'w3-a32-uniform': (0.706,)})
    assert cells_of(tables(results), '| 5 | 3')[-1] == 'the other way, one seed'


def test_gap_over_the_training(plan, results):
    from ablation_report import draw, tables

    whole = dict(epochs=[1, 2, 3], soft=[0.5, 0.6, 0.61], hard=[0.3, 0.5, 0.6])
    # killed before the second validation
    part = dict(epochs=[1, 3], soft=[0.5, 0.61], hard=[0.32, 0.6])
    fill(plan, results, {'gap-growing': (0.6,)}, gap=whole)
    results.add(plan.Run('gap-growing', 1, 2e-3), dict(mAP=0.62, minutes=1.0, gap=part))
    fill(
        plan, results, {'gap-10': (0.3, 0.3)}, gap=dict(epochs=[1, 2], soft=[0.5, 0.6], hard=[0, 0])
    )
    table = tables(results)
    assert cells_of(table, '| T from 10 to 100')[1:] == [
        *('0.190 ± 0.014', '0.010 ± 0.000', 'yes', '0.610 ± 0.014'),
    ]
    assert cells_of(table, '| T = 10 ')[1:] == [
        *('0.500 ± 0.000', '0.600 ± 0.000', 'no', '0.300 ± 0.000'),
    ]
    assert cells_of(table, '| T = 100')[1:] == [''] * 4
    [axes] = draw(results).axes
    mean = next(line for line in axes.get_lines() if line.get_label() == 'T from 10 to 100')
    assert mean.get_xdata().tolist() == [1, 3]
    assert mean.get_ydata().tolist() == pytest.approx([0.19, 0.01])


def test_rows_of_a_recipe_that_has_changed_do_not_count(results, plan):
    run = plan.Run('w2-a32', 0, 2e-3)
    results._rows.append(dict(row='w2-a32', seed=0, recipe='0badcafe', mAP=0.6, minutes=1.0))
    assert results.summary('w2-a32') is None
    assert run in plan.AblationPlan(['w2-a32'], [0], 2e-3).missing(results.scores())


def test_other_conditions_are_refused(results, plan, tmp_path):
    fill(plan, results, {'w2-a32': (0.6,)})
    with pytest.raises(ValueError, match='made with rate = None, not 0'):
        type(results)(tmp_path / 'ablation.json', {**CONDITIONS, 'rate': 0.001})


@pytest.mark.slow
def test_the_gap_of_a_real_training(start, tmp_path):
    out_dir = tmp_path / 'out'
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/benchmarks/ablation.py')]
    command += ['--rows', 'gap-growing', '--seeds', '5', '--out-dir', str(out_dir)]
    command += ['--checkpoint', str(start.checkpoint), '--cfg-options', *start.cfg_options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[0/1] gap-growing seed 5 ' in done.stdout
    [run] = json.loads((out_dir / 'ablation.json').read_text())['runs']
    assert run['gap']['epochs'] == list(range(1, 9))
    assert len(run['gap']['soft']) == len(run['gap']['hard']) == 8
    assert cells_of((out_dir / 'ablation.md').read_text(), '| T from 10 to 100')[4] == (
        f'{run["mAP"]:.3f}'
    )
    assert (out_dir / 'ablation.png').read_bytes().startswith(b'\x89PNG')
