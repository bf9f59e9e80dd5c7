"""The gap curve: read from what a real training logs, and from logs that are not as they should."""

import json

import pytest

from mmqnet.visualization import draw_gap, read_gap


def gap(step, soft, hard, metric='coco/bbox_mAP'):
    return {
        f'gap/hard/{metric}': hard,
        f'gap/soft/{metric}': soft,
        f'gap/{metric}': soft - hard,
        'step': step,
    }


def train(epoch, step, weight, activation=None):
    activation = weight if activation is None else activation
    return dict(
        loss=1.0,
        temperature_weight=weight,
        temperature_activation=activation,
        epoch=epoch,
        iter=step,
        step=step,
    )


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def run_log(work_dir, name, *records):
    return write(work_dir / name / 'vis_data' / 'scalars.json', *records)


def test_curve_with_temperatures(tmp_path):
    log = write(
        tmp_path / 'scalars.json',
        train(1, 50, 10),
        {'coco/bbox_mAP': 0.4, 'step': 1},
        gap(1, 0.5, 0.4),
        train(2, 100, 20, 5),
        gap(2, 0.6, 0.55),
    )
    curve = read_gap(log)
    assert (curve.metric, curve.unit, curve.steps) == ('coco/bbox_mAP', 'epoch', (1, 2))
    assert (curve.soft, curve.hard) == ((0.5, 0.6), (0.4, 0.55))
    assert curve.temperatures == {'weight': (10.0, 20.0), 'activation': (10.0, 5.0)}
    figure = draw_gap(curve)
    lines = {item.get_gid(): item for item in figure.findobj() if item.get_gid()}
    assert list(lines['soft'].get_ydata()) == [0.5, 0.6]
    assert list(lines['hard'].get_ydata()) == [0.4, 0.55]
    assert list(lines['gap'].get_ydata()) == pytest.approx([0.1, 0.05])
    labels = [line.get_label() for axes in figure.axes for line in axes.get_lines()]
    assert {'temperature T, weight', 'temperature T, activation'} <= set(labels)


def test_iterations_and_no_temperature(tmp_path):
    records = [dict(loss=1.0, iter=500, step=500), gap(500, 0.5, 0.4), gap(900, 0.5, 0.5)]
    curve = read_gap(write(tmp_path / 'scalars.json', *records))
    assert curve.unit == 'iteration'
    assert curve.temperatures == {}
    assert len(draw_gap(curve).axes) == 2


def test_one_validation_is_two_bars(tmp_path):
    """A curve of one point would be a dot in the middle of an axis of its own."""
    log = write(tmp_path / 'scalars.json', train(1, 50, 10), gap(1, 0.5, 0.4))
    figure = draw_gap(read_gap(log))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.4, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['hard', 'soft']
    assert [text.get_text() for text in axes.texts] == ['0.4', '0.5']
    titles = ' '.join(text.get_text() for text in figure.findobj() if hasattr(text, 'get_text'))
    assert 'epoch 1, gap 0.1, T of weight 10' in titles


def test_resumed_run_goes_on_where_the_first_stopped(tmp_path):
    run_log(tmp_path, '1', gap(1, 0.1, 0.1), gap(2, 0.2, 0.1), gap(3, 0.3, 0.1))
    run_log(tmp_path, '2', gap(2, 0.25, 0.1))
    run_log(tmp_path, '3', {'coco/bbox_mAP': 0.1, 'step': 0})  # a test: no gap
    assert read_gap(tmp_path).soft == (0.1, 0.25)


def test_a_run_that_only_validates_is_no_part_of_the_training(tmp_path):
    run_log(tmp_path, '1', gap(0, 0.1, 0.05))
    run_log(tmp_path, '2', gap(0, 0.2, 0.1))
    assert (read_gap(tmp_path).steps, read_gap(tmp_path).soft) == ((0,), (0.2,))
    run_log(tmp_path, '3', gap(1, 0.3, 0.2), gap(2, 0.4, 0.3))
    run_log(tmp_path, '4', gap(0, 0.5, 0.4))
    assert (read_gap(tmp_path).steps, read_gap(tmp_path).soft) == ((1, 2), (0.3, 0.4))


def test_metric_by_name(tmp_path):
    record = gap(1, 0.5, 0.4) | gap(1, 0.9, 0.8, 'coco/bbox_mAP_50')
    log = write(tmp_path / 'scalars.json', record)
    assert read_gap(log, 'coco/bbox_mAP_50').hard == (0.8,)
    with pytest.raises(
        ValueError, match=r"no metric 'bbox_mAP50'.*Did you mean 'coco/bbox_mAP_50'"
    ):
        read_gap(log, 'bbox_mAP50')


def test_missing_and_unfit_logs(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_gap(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'no `scalars\.json`'):
        read_gap(tmp_path)
    with pytest.raises(ValueError, match=r'holds no soft/hard gap.*SoftHardGapHook'):
        read_gap(write(tmp_path / 'a.json', train(1, 50, 10)))
    for text in ('no json', '[1]', '{"loss": 1}', '{"step": null}'):
        bad = tmp_path / 'b.json'
        bad.write_text('{"loss": 1.0, "step": 1}\n' + text)
        with pytest.raises(ValueError, match=r'b\.json, line 2 is not a record'):
            read_gap(bad)
