"""Temperature and phases as functions of the progress."""

import pytest

from mmqnet.engine.schedules import Phase, PhaseSchedule, build_temperature
from mmqnet.quantizers import Mode


def test_temperature_counts_epochs_from_one():
    schedule = build_temperature('epoch', dict(slope=5), 'k')
    epochs = [0, 0.5, 0.999, 1, 1.5, 7]
    assert [schedule.value(e, 0) for e in epochs] == [5, 5, 5, 10, 10, 40]


def test_cap():
    schedule = build_temperature('epoch', dict(slope=5, cap=12), 'k')
    assert [schedule.value(e, 0) for e in range(4)] == [5, 10, 12, 12]


def test_by_progress_is_linear():
    schedule = build_temperature('progress', dict(start=2, end=102), 'k')
    assert [schedule.value(99, p) for p in (0, 0.25, 1)] == [2, 27, 102]


@pytest.mark.parametrize(
    ('by', 'config', 'error', 'message'),
    [
        (
            'iter',
            dict(slope=1),
            ValueError,
            r"`by` should be 'epoch' or 'progress', but got 'iter'",
        ),
        (['epoch'], dict(slope=1), ValueError, r"`by` should be .*'progress', but got \['epoch'\]"),
        ('epoch', dict(), ValueError, r"`k` should name its 'slope', but got \{\}"),
        ('epoch', dict(slop=1), ValueError, r"unknown key 'slop'.*Did you mean 'slope'"),
        ('epoch', dict(slope=1, end=3), ValueError, "unknown key 'end'"),
        ('epoch', dict(slope=0), ValueError, r'`k\.slope` should be positive.*0'),
        ('epoch', dict(slope=float('nan')), ValueError, r'`k\.slope` should be positive.*nan'),
        (
            'epoch',
            dict(slope=float('inf')),
            ValueError,
            r'`k\.slope` should be positive and finite.*inf',
        ),
        ('epoch', dict(slope='5'), TypeError, r"`k\.slope` should be a number, but got '5'"),
        ('epoch', dict(slope=5, cap=-1), ValueError, r'`k\.cap` should be positive, but got -1'),
        ('progress', dict(start=1), ValueError, "should name its 'end'"),
        ('progress', dict(start=5, end=2), ValueError, r'`k\.end` should not be below `k\.start`'),
        ('epoch', [5], TypeError, r'`k` should be a dict, but got \[5\]'),
    ],
)
def test_wrong_temperatures(by, config, error, message):
    with pytest.raises(error, match=message):
        build_temperature(by, config, 'k')


def phases(*pairs):
    return PhaseSchedule.from_config([dict(begin=b, phase=p) for b, p in pairs], 'k')


def test_phases_begin_at_their_shares():
    schedule = phases((0, 'weights'), (0.25, 'activations'), (0.5, 'both'))
    found = [schedule.value(p) for p in (0, 0.2499, 0.25, 0.4, 0.5, 0.999, 1)]
    weights, activations, both = Phase.WEIGHTS, Phase.ACTIVATIONS, Phase.BOTH
    assert found == [weights, weights, activations, activations, both, both, both]


def test_what_the_phases_train():
    assert Phase.WEIGHTS.value == (Mode.LEARNED, Mode.FLOAT)
    assert Phase.ACTIVATIONS.value == (Mode.FIXED, Mode.LEARNED)
    assert Phase.BOTH.value == (Mode.LEARNED, Mode.LEARNED)


@pytest.mark.parametrize(
    ('config', 'error', 'message'),
    [
        ([], TypeError, r'`k` should be a list of dicts, but got \[\]'),
        ('both', TypeError, "but got 'both'"),
        ([dict(begin=0, phase='all')], ValueError, r"`k\[0\]\.phase` .*'both'.*but got 'all'"),
        ([dict(begin=0, phase=['both'])], ValueError, r"`k\[0\]\.phase` .*but got \['both'\]"),
        ([dict(begin=0)], ValueError, r'`k\[0\]\.phase` .*but got None'),
        ([dict(phase='both')], TypeError, r'`k\[0\]\.begin` should be a number, but got None'),
        ([dict(begin=-1, phase='both')], ValueError, r'`k\[0\]\.begin` should be not neg.* -1'),
        ([dict(begin=0, phases='both')], ValueError, r"`k\[0\]` .*'phases'.*Did you mean 'phase'"),
        ([dict(begin=0.1, phase='both')], ValueError, r'increase from 0.*\[0\.1\]'),
        ([dict(begin=0, phase='both'), dict(begin=1, phase='both')], ValueError, 'below 1'),
        ([dict(begin=0, phase='both'), dict(begin=0, phase='both')], ValueError, 'increase'),
        ([dict(begin=0, phase='both'), dict(begin=float('nan'), phase='both')], ValueError, ''),
    ],
)
def test_wrong_phases(config, error, message):
    with pytest.raises(error, match=message):
        PhaseSchedule.from_config(config, 'k')
