"""Pictures show what the quantizers do: their artists are held against the hard function."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from torch import nn
from toy_models import calibrated

from mmqnet import visualization as vis
from mmqnet.layers import QuantConv2d, QuantLinear
from mmqnet.quantizers import Mode, soft_evaluation


def conv(**config):
    weight = dict(levels='pm4') | config.pop('weight', {})
    return QuantConv2d(3, 8, 3, weight_quantizer=weight, **config)


def network(**config):
    model = nn.Sequential(conv(**config), nn.ReLU(), linear())
    return calibrated(model, torch.randn(4, 3, 8, 8))


def linear():
    return QuantLinear(
        6, 4, weight_quantizer=dict(levels='binary'), input_quantizer=dict(levels='uint2')
    )


def images():
    return [torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)]


@pytest.fixture
def model():
    return network()


def artist(figure: Figure, gid: str):
    found = figure.findobj(lambda item: item.get_gid() == gid)
    assert len(found) == 1
    return found[0]


def steps_of(figure: Figure):
    line = artist(figure, 'hard')
    assert line.get_drawstyle() == 'steps-post'
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


@pytest.mark.parametrize('draw', [vis.draw_staircase, vis.draw_curves])
@pytest.mark.parametrize('levels', ['binary', 'ternary', 'pm4', 'int8', [-1.0, 0.5, 3.0]])
def test_steps_are_the_hard_function(draw, levels):
    source = vis.weight_values(network(weight=dict(levels=levels)), '0')
    quantizer = source.quantizer
    with torch.no_grad():
        quantizer.log_alpha.add_(0.3)  # learned: no longer 1 / beta
        figure = draw(source)
        x, y = steps_of(figure)
        assert np.array_equal(x[1:-1], (quantizer.thresholds / quantizer.beta).numpy())
        assert np.array_equal(y[:-1], (quantizer.alpha * quantizer.levels).numpy())
        middles = torch.from_numpy((x[1:] + x[:-1]) / 2).float()
        wide = np.diff(x) > 1e-6  # equal thresholds skip a level
        assert np.array_equal(quantizer.eval()(middles).numpy()[wide], y[:-1][wide])
    low, high = figure.axes[0].get_xlim()
    assert low < x[1] <= x[-2] < high


def test_shares_are_those_of_the_codes(model):
    source = vis.weight_values(model, '0')
    bars = vis.draw_staircase(source).axes[1].patches
    codes = source.quantizer.codes(source.values).flatten()
    expected = [100 * (codes == code).float().mean().item() for code in range(7)]
    assert [bar.get_width() for bar in bars] == pytest.approx(expected)


def test_soft_curves_are_the_soft_function(model):
    source = vis.weight_values(model, '0')
    figure = vis.draw_curves(source, temperatures=[7, 2])
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    for temperature in (2, 7):
        x, y = lines[f'soft, T = {temperature}'].get_data()
        source.quantizer.set_temperature(temperature)
        with torch.no_grad(), soft_evaluation(source.quantizer):
            assert np.array_equal(source.quantizer.eval()(torch.as_tensor(x)).numpy(), y)


@pytest.mark.parametrize('temperatures', [[], [0.0], [-1.0], [float('inf')], [float('nan')]])
def test_bad_temperatures(model, temperatures):
    with pytest.raises(ValueError, match='temperatures'):
        vis.draw_curves(vis.weight_values(model, '0'), temperatures)


def test_histogram_holds_the_values(model):
    source = vis.weight_values(model, '0')
    figure = vis.draw_staircase(source)
    counts = [axes.patches[0].get_data().values for axes in figure.axes[2:]]
    assert counts[0].sum() == source.values.numel()
    assert '216 weights' in figure.axes[0].get_legend_handles_labels()[1]


def test_channels_share_the_scaled_domain():
    model = network(weight=dict(levels='pm4', granularity='channel'))
    source = vis.weight_values(model, '0')
    figure = vis.draw_staircase(source)
    x, y = steps_of(figure)
    assert np.array_equal(x[1:-1], source.quantizer.thresholds.numpy())
    assert y[:-1].tolist() == source.quantizer.levels.tolist()
    assert 'scaled' in figure.axes[0].get_xlabel()


def test_inputs_are_what_reaches_the_quantizer(model):
    seen = []
    model[2].input_quantizer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.train()
    source = vis.collect_inputs(model, ['2'], images(), model)['2']
    assert model.training
    assert source.kind == 'input'
    assert set(source.values.tolist()) <= set(torch.cat(seen).flatten().tolist())
    x, y = steps_of(vis.draw_staircase(source))
    quantizer = source.quantizer
    assert np.array_equal(x[1:-1], (quantizer.thresholds / quantizer.beta).detach().numpy())
    assert np.array_equal(y[:-1], (quantizer.alpha * quantizer.levels).detach().numpy())
    assert len(model[2].input_quantizer._forward_pre_hooks) == 1  # this test's own


def test_title_says_what_it_is(model):
    figure = vis.draw_staircase(vis.weight_values(model, '0'))
    assert figure.get_suptitle() == '0: 3-bit weights, 7 levels'
    model[0].weight_quantizer.set_mode(Mode.FLOAT)
    assert 'switched off' in vis.draw_staircase(vis.weight_values(model, '0')).get_suptitle()


@pytest.mark.parametrize(
    ('layer', 'kind', 'message'),
    [
        ('00', 'weight', r"no layer '00'\. Did you mean '0'\?"),
        ('nothing', 'weight', "no layer 'nothing'; layers with quantized weights are '0', '2'"),
        ('1', 'weight', r"'1' \(ReLU\) does not quantize its weight"),
        ('0', 'input', r"'0' \(QuantConv2d\) does not quantize its input; .* are '2'"),
    ],
)
def test_wrong_layer(model, layer, kind, message):
    with pytest.raises(ValueError, match=message):
        vis.check_layer(model, layer, kind)


def test_layer_inside_and_model_without_quantizers(model):
    whole = nn.ModuleDict(dict(body=model))
    with pytest.raises(ValueError, match=r"inside it are 'body\.0', 'body\.2'"):
        vis.check_layer(whole, 'body', 'weight')
    with pytest.raises(ValueError, match='no quantized weights'):
        vis.check_layer(nn.ReLU(), 'x', 'weight')
    with pytest.raises(ValueError, match='no quantized weights'):
        vis.draw_overview(nn.ReLU())


def test_not_calibrated_and_no_images(model):
    with pytest.raises(ValueError, match='not calibrated'):
        vis.weight_values(nn.Sequential(conv()), '0')
    with pytest.raises(ValueError, match="no input has reached '2'"):
        vis.collect_inputs(model, ['2'], [], model)


def test_overview_shows_every_quantizer():
    model = network(weight=dict(levels='pm4', granularity='channel'))
    inputs = vis.collect_inputs(model, ['2'], images(), model)
    figure = vis.draw_overview(model, inputs)
    alpha, beta, used, error = figure.axes
    rows = {label.get_text(): row for row, label in enumerate(alpha.get_yticklabels())}
    assert rows == {'0': 0, '2': 1}
    points = {line.get_gid(): line.get_xdata()[0] for line in beta.get_lines() if line.get_gid()}
    assert set(points) == {'weight:0', 'weight:2', 'input:2'}
    assert points['weight:2'] == model[2].weight_quantizer.beta.item()
    assert points['weight:0'] == model[0].weight_quantizer.beta.median().item()
    points = {line.get_gid(): line.get_xdata()[0] for line in alpha.get_lines() if line.get_gid()}
    assert points['input:2'] == model[2].input_quantizer.alpha.item()
    assert points['weight:0'] == model[0].weight_quantizer.alpha.median().item()
    shares = {line.get_gid(): line.get_xdata()[0] for line in used.get_lines()}
    assert shares['weight:2'] == 100
    weight = model[2].weight
    change = (model[2].weight_quantizer.eval()(weight) - weight).norm() / weight.norm()
    errors = {line.get_gid(): line.get_xdata()[0] for line in error.get_lines() if line.get_gid()}
    assert errors['weight:2'] == pytest.approx(100 * change.item(), rel=1e-4)
    x = inputs['2'].values
    change = (model[2].input_quantizer.eval()(x) - x).norm() / x.norm()
    assert errors['input:2'] == pytest.approx(100 * change.item(), rel=1e-4)


def detection(boxes, scores, labels):
    instances = SimpleNamespace(
        bboxes=torch.tensor(boxes), scores=torch.tensor(scores), labels=torch.tensor(labels)
    )
    return SimpleNamespace(pred_instances=instances)


def test_side_by_side_draws_boxes_above_the_threshold(tmp_path):
    picture = np.full((40, 60, 3), 128, dtype=np.uint8)
    found = detection([[5.0, 6.0, 25.0, 30.0], [1.0, 1.0, 9.0, 9.0]], [0.9, 0.3], [1, 0])
    nothing = detection(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int))
    figure = vis.draw_side_by_side(
        [picture, picture],
        {'float': [found, found], 'quantized': [found, nothing]},
        ('cat', 'dog'),
        score_threshold=0.5,
    )
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [['dog 0.90'], ['dog 0.90'], ['dog 0.90'], []]
    box = figure.axes[0].patches[1]  # on a black one, below the label
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (5, 6, 20, 24)
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ['float', 'quantized']
    vis.save_figure(figure, tmp_path / 'new' / 'picture.png')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['picture.png']


def test_labels_do_not_hide_each_other():
    picture = np.zeros((300, 300, 3), dtype=np.uint8)
    boxes = [[40.0 + 3 * i, 60.0 + 2 * i, 200.0, 220.0 - i] for i in range(4)]
    found = detection([*boxes, [270.0, 0.0, 300.0, 20.0]], [0.99, 0.9, 0.8, 0.7, 0.6], [0] * 5)
    axes = vis.draw_side_by_side([picture], {'float': [found]}, ('person',)).axes[0]
    labels = [patch for patch in axes.patches if patch.get_fill()]
    corners = [(*label.get_xy(), label.get_width(), label.get_height()) for label in labels]
    assert len(corners) == 5
    for i, (x, y, w, h) in enumerate(corners):
        assert x >= 0
        assert y >= 0
        assert x + w <= 300
        assert all(
            x + w <= a or a + c <= x or y + h <= b or b + d <= y for a, b, c, d in corners[:i]
        )


def test_side_by_side_refuses_what_does_not_fit():
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match='nothing to draw'):
        vis.draw_side_by_side([], {'float': []}, ())
    with pytest.raises(ValueError, match="'float' has 0 results for 1 images"):
        vis.draw_side_by_side([picture], {'float': []}, ())


@pytest.mark.parametrize('name', ['picture', 'picture.txt', 'picture.pgf', 'folder.png'])
def test_bad_picture_names(tmp_path, name):
    (tmp_path / 'folder.png').mkdir()
    with pytest.raises(ValueError, match=r'a picture should .* but'):
        vis.check_picture_path(tmp_path / name)


def test_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / 'picture.png'
    path.write_text('former')

    class Failing(Figure):
        def savefig(self, name, **_):
            with open(name, 'w') as file:
                file.write('half')
            raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        vis.save_figure(Failing(), path)
    assert path.read_text() == 'former'
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_leave_no_global_state(model):
    vis.draw_staircase(vis.weight_values(model, '0'))
    assert Gcf.get_all_fig_managers() == []
