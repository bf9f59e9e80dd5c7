"""The comparison of methods: its plan, its configs, its results, and one real training."""

import argparse
import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comparison_fixtures import CONDITIONS, ROOT
from mmengine.config import Config

from mmqnet.models import QuantizationConfig

pytestmark = pytest.mark.usefixtures('benchmarks_on_path')


@pytest.fixture
def plan(benchmarks_on_path):
    import methods_plan

    return methods_plan


@pytest.fixture
def results(benchmarks_on_path, tmp_path):
    from methods_report import MethodResults

    return MethodResults(tmp_path / 'methods.json', CONDITIONS)


def found(score, minutes=1.0, validation=None):
    """What a training gives; on the validation split as much as on the test split by default."""
    mAP = score if validation is None else validation
    return dict(mAP=mAP, test_mAP=score, minutes=minutes)


def test_first_seed_at_each_rate_and_others_at_the_best(plan, tmp_path):
    from methods_report import MethodResults

    results = MethodResults(tmp_path / 'methods.json', CONDITIONS, seed=7)
    cell = plan.Cell('u', '2/2')
    to_do = plan.MethodsPlan([cell], [7, 8, 9])
    runs = to_do.missing(results.scores())
    assert [(run.seed, run.rate) for run in runs] == [(7, rate) for rate in plan.RATES[4]]
    assert to_do.left(results.scores()) == [4] * to_do.total({}) == [4] * 5
    for run, score in zip(runs, (0.5, 0.7, 0.6), strict=True):
        results.add(run, found(1 - score, validation=score))
    runs = to_do.missing(results.scores())
    assert [(run.seed, run.rate) for run in runs] == [(8, plan.RATES[4][1]), (9, plan.RATES[4][1])]
    assert to_do.left(results.scores()) == [4, 4]
    for run in runs:
        results.add(run, found(0.71))
    assert to_do.missing(results.scores()) == to_do.left(results.scores()) == []
    assert results.summary(cell).scores == (1 - 0.7, 0.71, 0.71)  # of the test split


def test_the_lowest_of_equal_rates_is_taken(plan):
    cell, rates = plan.Cell('u', '2/2'), plan.RATES[4]
    scores = {plan.Run(cell, 0, rate).key: 0.7 for rate in rates}
    assert plan.best_rate(cell, scores, 0, sorted(rates, reverse=True)) == min(rates)


def test_rates_go_with_the_epochs(plan):
    for bits, rates in (('4/4', plan.RATES[2]), ('2/2', plan.RATES[4])):
        cell = plan.Cell('u', bits)
        scores = {plan.Run(cell, 0, rate).key: rate for rate in rates[:-1]}
        assert plan.best_rate(cell, scores, 0, None) is None
        scores[plan.Run(cell, 0, rates[-1]).key] = 0.0
        assert plan.best_rate(cell, scores, 0, None) == rates[-2]


@pytest.mark.parametrize('factor', [0.5, 2])
def test_the_search_goes_on_while_the_best_rate_is_at_an_end(plan, results, factor):
    """The three rates of the epochs, then half or twice the last, until one is worse."""
    cell = plan.Cell('u', '2/2')
    to_do = plan.MethodsPlan([cell], [0, 1])
    scores, peak = {}, (plan.RATES[4][0] if factor < 1 else plan.RATES[4][-1]) * factor**2
    tried = []
    for total in (4, 5, 6, 7):
        assert to_do.total(results.scores()) == total
        runs = to_do.missing(results.scores())
        tried += [run.rate for run in runs]
        assert {run.seed for run in runs} == {0}
        assert to_do.left(results.scores()) == [4] * (total - len(scores))
        assert results.summary(cell) is None
        for run in runs:
            scores[run.rate] = 1 - abs(run.rate - peak)
            results.add(run, found(scores[run.rate]))
    assert tried == [*plan.RATES[4], *(peak / factor, peak, peak * factor)]
    [run] = to_do.missing(results.scores())
    assert (run.seed, run.rate) == (1, peak)
    assert results.summary(cell).scores == (1.0,)


def test_the_search_ends_at_equal_rates(plan):
    """A rate at an end that is not ahead of its neighbour is no reason to go on."""
    cell, rates = plan.Cell('u', '2/2'), plan.RATES[4]
    for best in (rates[:2], rates[1:], rates):
        scores = {plan.Run(cell, 0, rate).key: 0.5 + 0.1 * (rate in best) for rate in rates}
        assert plan.rates_of(cell, scores, 0, None) == list(rates)
        assert plan.best_rate(cell, scores, 0, None) == min(best)


def test_methods_differ_in_the_rates_that_are_tried(plan):
    cells = plan.cells_of(['u', 'LSQ'], ['2/2'])
    scores = {
        plan.Run(cell, 0, rate).key: 0.5 + (rate if cell.method == 'LSQ' else 0)
        for cell in cells
        for rate in plan.RATES[4]
    }
    to_do = plan.MethodsPlan(cells, [0, 1])
    runs = [(run.cell.method, run.seed, run.rate) for run in to_do.missing(scores)]
    assert runs == [('LSQ', 0, 2 * plan.RATES[4][-1]), ('u', 1, plan.RATES[4][0])]
    assert (to_do.total(scores), to_do.left(scores)) == (4 + 5, [4] * 3)


def test_the_first_seed_of_the_command_decides_the_rate(plan, tmp_path):
    from methods_report import MethodResults

    path, cell = tmp_path / 'methods.json', plan.Cell('u', '2/2')
    for seeds, best, scores in (([0, 1], 0, [0.6, 0.6]), ([1, 2], 2, [0.5, 0.6, 0.6])):
        results = MethodResults(path, CONDITIONS, seeds[0])
        to_do = plan.MethodsPlan([cell], seeds)
        while runs := to_do.missing(results.scores()):
            for run in runs:
                results.add(run, found(0.6 if run.rate == plan.RATES[4][best] else 0.5))
        assert sorted(results.summary(cell).scores) == scores


def test_the_rates_that_are_asked_for(plan, tmp_path):
    from methods_report import MethodResults

    results = MethodResults(tmp_path / 'methods.json', CONDITIONS, rates=[0.01])
    cell = plan.Cell('u', '2/2')
    to_do = plan.MethodsPlan([cell], [0, 1], [0.01])
    for score in (0.5, 0.6):
        [run] = to_do.missing(results.scores())
        assert run.rate == 0.01
        results.add(run, found(score))
    assert to_do.missing(results.scores()) == []
    assert results.summary(cell).scores == (0.5, 0.6)


def test_a_recipe_that_has_changed_is_trained_anew(plan, results, tmp_path):
    cell, row = plan.Cell('u', '2/2'), dict(method='u', bits='2/2', seed=0, epochs=4, minutes=1.0)
    rows = [dict(row, rate=rate, mAP=0.9, recipe='0badcafe') for rate in plan.RATES[4]]
    content = dict(conditions=CONDITIONS, runs=rows)
    (tmp_path / 'methods.json').write_text(json.dumps(content))
    results = type(results)(tmp_path / 'methods.json', CONDITIONS)
    assert results.summary(cell) is None
    runs = plan.MethodsPlan([cell], [0]).missing(results.scores())
    assert [run.rate for run in runs] == list(plan.RATES[4])
    for run in runs:
        results.add(run, found(0.5))
    assert results.summary(cell).scores == (0.5,)
    kept = json.loads((tmp_path / 'methods.json').read_text())['runs']
    assert kept[:3] == rows
    assert len(kept) == 6


def test_a_training_without_a_test_score_does_not_count(plan, results):
    cell = plan.Cell('u', '2/2')
    for run in plan.MethodsPlan([cell], [0]).missing({}):
        results.add(run, dict(mAP=0.9, minutes=1.0))
    assert results.scores() == {}
    assert results.summary(cell) is None


def test_methods_take_turns_at_each_rate(plan):
    cells = plan.cells_of(['u', 'LSQ'], ['2/2', '4/4'])
    runs = plan.MethodsPlan(cells, [0, 1]).missing({})
    assert [(run.cell.bits, run.rate, run.cell.method) for run in runs] == [
        (bits, rate, method)
        for bits in ('2/2', '4/4')
        for rate in plan.RATES[plan.EPOCHS[bits]]
        for method in ('u', 'LSQ')
    ]


def test_each_float_row_comes_once(plan):
    cells = plan.cells_of(['float', 'u', 'TWN'], ['2/32', '3/8', '2/2'])
    assert [(cell.method, cell.bits) for cell in cells] == [
        *(('float', '2 epochs'), ('u', '2/32'), ('TWN', '2/32'), ('u', '3/8')),
        *(('float', '4 epochs'), ('u', '2/2')),
    ]


def test_every_recipe_is_there(plan):
    from comparison_configs import RECIPES

    cells = plan.cells_of(list(plan.METHODS), list(plan.EPOCHS))
    assert len(cells) == 4 * len(plan.EPOCHS) + 4
    for cell in cells:
        assert (RECIPES / f'{plan.METHODS[cell.method][cell.bits]}.py').is_file()


@pytest.mark.parametrize('bits', ['2/2', '1/32'])
def test_configs_load(plan, tmp_path, bits):
    from comparison import folder_of

    for cell in plan.cells_of(['float', *plan.METHODS], [bits]):
        run = plan.Run(cell, 3, 2e-3)
        file = tmp_path / f'{folder_of(run.key)}.py'
        file.write_text(run.config_text(Path('float.pth')))
        config = Config.fromfile(file)
        assert config.load_from == 'float.pth'
        assert config.randomness.seed == 3
        assert config.train_cfg.max_epochs == config.param_scheduler[0].total_steps == cell.epochs
        assert config.optim_wrapper.optimizer.lr == config.param_scheduler[0].eta_max == 2e-3
        teacher = (config.default_hooks.get('distillation') or {}).get('teacher')
        assert teacher == ('float.pth' if cell.method == 'u distilled' else None)
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
    results.add(run, found(0.6, minutes=2.0))
    again = type(results)(tmp_path / 'methods.json', CONDITIONS)
    assert again.scores() == {run.key: 0.6}
    assert again.minutes_per_epoch() == 0.5
    with pytest.raises(ValueError, match="made with checkpoint = '0123', not 'other'"):
        type(results)(tmp_path / 'methods.json', {**CONDITIONS, 'checkpoint': 'other'})


@pytest.mark.parametrize(
    'text',
    [
        *('{', '[]', 'null', '{"conditions": [1], "runs": []}', '{"conditions": {}, "runs": 1}'),
        f'{{"conditions": {json.dumps(CONDITIONS)}, "runs": [{{"method": "u"}}]}}',
    ],
)
def test_a_damaged_file_is_refused(results, tmp_path, text):
    (tmp_path / 'methods.json').write_text(text)
    with pytest.raises(ValueError, match=r"methods\.json' holds no results .*: delete it"):
        type(results)(tmp_path / 'methods.json', CONDITIONS)


def test_conditions_are_written_before_the_first_training(plan, results, tmp_path):
    """A training that is killed goes on: not after a change of the checkpoint."""
    from comparison import Report, compare
    from methods_report import draw, table

    before = signal.getsignal(signal.SIGTERM)
    try:
        compare(argparse.Namespace(jobs=1), plan.MethodsPlan([], [0]), results, Report(table, draw))
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ValueError, match='name another --out-dir'):
        type(results)(tmp_path / 'methods.json', {**CONDITIONS, 'checkpoint': 'other'})


def arguments(script, monkeypatch, *given):
    monkeypatch.setattr(sys, 'argv', [f'{script}.py', *given])
    return importlib.import_module(script).parse_args()


@pytest.mark.parametrize(('split', 'remedy'), [('test', ' --num-test 2000`'), ('val', '`')])
def test_data_without_a_split_are_refused(start, monkeypatch, split, remedy):
    from comparison_configs import annotation_file

    file = annotation_file(start.cfg_options, split)
    file.unlink()
    options = ['--checkpoint', str(start.checkpoint), '--cfg-options', *start.cfg_options]
    monkeypatch.setattr(sys, 'argv', ['methods.py', *options])
    with pytest.raises(SystemExit) as error:
        importlib.import_module('methods').main()
    assert str(error.value) == (
        f'methods.py: error: {file} does not exist: make the data with '
        f'`tools/dataset_converters/digits.py{remedy}'
    )


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['--seeds', '-1'], 'argument --seeds: `seed` should be an integer from 0 to 2**32 - 1'),
        (['--cfg-options', 'lr'], "argument --cfg-options: should be KEY=VALUE, but got 'lr'"),
        (['--rates', 'nan'], 'argument --rates: should be a positive number, but got nan'),
        (
            ['--methods', 'BWN', 'TWN', '--bits', '2/2', '4/4'],
            'BWN, TWN should have a recipe for 2/2, 4/4',
        ),
    ],
)
def test_wrong_arguments_are_refused(monkeypatch, capsys, given, message):
    with pytest.raises(SystemExit):
        arguments('methods', monkeypatch, *given)
    assert message in capsys.readouterr().err


def test_what_is_named_twice_counts_once(monkeypatch):
    args = arguments('methods', monkeypatch, '--seeds', '3', '3', '1', '--rates', '.01', '1e-2')
    assert (args.seeds, args.rates, args.cfg_options) == ([3, 1], [0.01], [])
    args = arguments('ablation', monkeypatch, '--rows', 'w2-a32', 'w2-a32')
    assert args.rows == ['w2-a32']


def test_a_checkpoint_of_a_quantized_model_is_refused(benchmarks_on_path, tmp_path):
    from comparison_results import describe

    args = argparse.Namespace(checkpoint=tmp_path / 'x.pth', cfg_options=[])
    weights = {'conv.weight': torch.ones(1)}
    torch.save(weights, args.checkpoint)
    assert describe(args, [])['cfg_options'] == []
    weights['conv.weight_quantizer.calibrated'] = torch.tensor(True)
    torch.save(dict(state_dict=weights), args.checkpoint)
    with pytest.raises(ValueError, match='should hold a float model'):
        describe(args, [])


def test_data_are_a_condition(start, plan):
    from comparison_configs import annotation_file
    from comparison_results import describe

    before = describe(start, plan.SPLITS)
    assert before == describe(start, plan.SPLITS)
    with annotation_file(start.cfg_options, 'val').open('a') as file:
        file.write('\n')
    after = describe(start, plan.SPLITS)
    assert {key for key in after if after[key] != before[key]} == {'data'}
    assert {key for key, value in after['data'].items() if value != before['data'][key]} == {'val'}


def test_what_is_unfinished_goes_on_under_the_same_conditions_alone(plan, tmp_path, monkeypatch):
    from comparison import Trainer

    folders = []
    monkeypatch.setattr(
        Trainer, '_call', lambda self, script, folder, *args, **_: folders.append(folder)
    )
    monkeypatch.setattr(Trainer, '_evaluate', lambda *_: 0.5)
    args = argparse.Namespace(out_dir=tmp_path, checkpoint=Path('float.pth'))
    run = plan.Run(plan.Cell('u', '2/2'), 0, 2e-3)
    assert Trainer(args, CONDITIONS).train(run)['minutes'] == 0
    (folders[0] / 'last_checkpoint').write_text('epoch_1.pth')
    assert Trainer(args, CONDITIONS).train(run)['minutes'] is None
    assert Trainer(args, {**CONDITIONS, 'torch': '3'}).train(run)['minutes'] == 0
    assert folders[0] == folders[1] != folders[2]


def test_interrupted_trainings_do_not_count_for_the_time_left(plan, results):
    for seed, minutes in enumerate((2.0, None, 4.0)):
        run = plan.Run(plan.Cell('u', '2/2'), seed, 1e-3)
        results.add(run, found(0.6, minutes=minutes))
    assert results.minutes_per_epoch() == 0.75


def test_table_marks_the_first_and_what_is_within_its_spread(plan, results):
    from methods_report import draw, table

    best = plan.RATES[4][1]
    scores = {
        ('float', '4 epochs'): (0.7, 0.7, 0.7),
        ('u', '2/2'): (0.63, 0.64, 0.65),
        ('LSQ', '2/2'): (0.625, 0.635, 0.645),
        ('paper', '2/2'): (0.5, 0.5, 0.5),
        ('u distilled', '2/2'): (0.66, 0.66, 0.66),
    }
    for (method, bits), of_seeds in scores.items():
        for rate in plan.RATES[4]:
            run = plan.Run(plan.Cell(method, bits), 0, rate)
            results.add(run, found(of_seeds[0] - abs(rate - best)))
        for seed in (1, 2):
            results.add(plan.Run(plan.Cell(method, bits), seed, best), found(of_seeds[seed]))
    row = next(line for line in table(results).splitlines() if line.startswith('| 2/2'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[:3] == ['2/2 (4)', '0.700 ± 0.000', '**0.640 ± 0.010 (0.914)**']
    assert cells[3].endswith('~')
    assert cells[5] == '0.500 ± 0.000 (0.714)'
    assert cells[4] == cells[6] == ''
    assert cells[8] == '0.660 ± 0.000 (0.943)'  # it has a teacher, so it is not the first
    [axis] = draw(results).axes
    trained = ['u', 'LSQ', 'paper', 'u distilled']
    assert [text.get_text() for text in axis.get_legend().get_texts()] == trained
    assert [list(line.get_ydata()) for line in axis.lines[:2]] == [
        [0.63, 0.64, 0.65],
        [0.625, 0.635, 0.645],
    ]
    assert [text.get_text() for text in axis.texts] == ['0.50']  # far below the others


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(plan, start, tmp_path):
    from comparison_results import describe
    from methods_report import MethodResults

    start.cfg_options.append('default_hooks.batch_norm.num_samples=16')
    out_dir, cell = tmp_path / 'out', plan.Cell('TWN', '2/32')
    kept = MethodResults(out_dir / 'methods.json', describe(start, plan.SPLITS))
    for rate in plan.RATES[2][1:]:
        kept.add(plan.Run(cell, 0, rate), found(0.5))
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/benchmarks/methods.py')]
    command += ['--methods', 'TWN', '--bits', '2/32', '--seeds', '0', '--out-dir', str(out_dir)]
    command += ['--checkpoint', str(start.checkpoint), '--cfg-options', *start.cfg_options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[2/3, about 0.0 h left] TWN 2/32 seed 0 rate 0.001 ' in done.stdout
    runs = json.loads((out_dir / 'methods.json').read_text())['runs']
    assert [run['rate'] for run in runs] == [0.002, 0.004, 0.001]
    assert 0 <= runs[-1]['test_mAP'] <= 1
    assert '| 2/32 (2) |  |  |  |  |  |  | **0.500** |  |' in (out_dir / 'methods.md').read_text()
    assert (out_dir / 'methods.png').exists()
