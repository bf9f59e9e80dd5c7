"""A short run of tools/fuzz.py, and its own judgements."""

import json
import os
import signal
import sys
import time

import pytest


@pytest.fixture(scope='module')
def fuzzing(root):
    sys.path.insert(0, str(root / 'tools'))
    try:
        import fuzzing.campaign
        import fuzzing.judge

        yield fuzzing
    finally:
        sys.path.remove(str(root / 'tools'))


def test_every_input_ends_in_success_or_a_line(fuzzing, tmp_path):
    numbers = dict(configs=16, checkpoints=12, annotations=8, exported=4)
    record = tmp_path / 'fuzz.json'
    groups = fuzzing.campaign.run(numbers, 12345, record)
    faults = {name: group.faults for name, group in groups.items() if group.faults}
    assert not faults, faults
    assert {name: group.done for name, group in groups.items()} == numbers
    kinds = {kind for group in groups.values() for kind, n in group.counts.items() if n}
    assert kinds == {'success', 'message'}
    more = fuzzing.campaign.run(dict(annotations=9), 12345, record)['annotations']
    assert (more.done, sum(more.counts.values())) == (9, 9)
    assert more.messages[:2] == groups['annotations'].messages[:2]
    assert '| annotations | 9 |' in fuzzing.campaign.table(dict(annotations=more))
    with pytest.raises(ValueError, match='is of seed 12345, but --seed is 1'):
        fuzzing.campaign.run(numbers, 1, record)
    assert json.loads(record.read_text())['seed'] == 12345


def _divide(_):
    return 1 / 0


def _refuse(_):
    from mmqnet.checks import check_bool

    check_bool(1, 'key')


def _fail_in_an_operation_of_ours(_):
    from mmqnet.checks import check_keys

    check_keys({'a': 1}, None, 'key')


CASES = {
    'success': lambda folder: (folder / 'whole.txt').touch(),
    'message': _refuse,
    'traceback': _divide,
    'traceback of ours': _fail_in_an_operation_of_ours,
    'hang': lambda _: time.sleep(60),
    'crash': lambda _: os.kill(os.getpid(), signal.SIGKILL),
    'half-written file': lambda folder: (folder / '.a.txt.part').touch(),
}


@pytest.mark.parametrize('kind', CASES)
def test_judgements(fuzzing, tmp_path, kind):
    outcome = fuzzing.judge.outcome_of(CASES[kind], tmp_path, 0.5 if kind == 'hang' else 30)
    assert outcome.kind == kind.removesuffix(' of ours'), outcome
    assert outcome.is_fault is (kind not in ('success', 'message'))
