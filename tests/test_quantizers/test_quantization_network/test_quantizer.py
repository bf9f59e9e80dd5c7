"""The quantizer's contract: modes, codes, state dict, calibration state."""

import copy
import dataclasses
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.runner import load_checkpoint
from torch import nn
from toy_models import activation_config, ready, weight_config

from mmqnet.ops import hard_quantize, soft_quantize
from mmqnet.quantizers import (
    Mode,
    QuantizationNetwork,
    Sample,
    quantizers_of,
    soft_evaluation,
)

LEVELS = ['binary', 'ternary', 'pm2', 'pm4', 'int5', 'int8', [-0.7, 0.1, 0.2], [-1, 5]]


def quantizer_of(levels='pm4', scale_shape=(), **config):
    return ready(QuantizationNetwork(weight_config(levels, **config), scale_shape))


def holder(quantizer):
    """A model with one quantizer, called `q`."""
    model = nn.Module()
    model.q = quantizer
    return model


class TestModes:
    def test_training_is_soft(self):
        quantizer, x = quantizer_of(), torch.randn(64)
        quantizer.set_temperature(3.0)
        q = quantizer
        expected = soft_quantize(x, q.levels, q.thresholds, q.alpha, q.beta, 3.0)
        torch.testing.assert_close(q(x), expected, rtol=0, atol=0)

    def test_evaluation_is_hard_at_any_temperature(self):
        q, x = quantizer_of().eval(), torch.randn(64)
        expected = hard_quantize(x, q.levels, q.thresholds, q.alpha, q.beta)
        for temperature in (0.5, 100.0):
            q.set_temperature(temperature)
            torch.testing.assert_close(q(x), expected, rtol=0, atol=0)

    @pytest.mark.parametrize('training', [True, False])
    def test_float_passes_everything(self, training):
        quantizer, x = quantizer_of().train(training), torch.randn(64)
        quantizer.set_mode(Mode.FLOAT)
        assert not quantizer.is_active
        torch.testing.assert_close(quantizer(x), x, rtol=0, atol=0)

    def test_float_passes_gradients_and_gives_zeros_to_its_parameters(self):
        quantizer, x = quantizer_of(learn_thresholds=True), torch.randn(64, requires_grad=True)
        quantizer.set_mode(Mode.FLOAT)
        weights = torch.randn(64)
        (quantizer(x) * weights).sum().backward()
        torch.testing.assert_close(x.grad, weights, rtol=0, atol=0)
        assert len(list(quantizer.parameters())) == 3
        for parameter in quantizer.parameters():
            assert parameter.grad is not None
            assert not parameter.grad.any()

    def test_fixed_is_hard_and_gives_zeros_to_all(self):
        quantizer, x = quantizer_of(), torch.randn(64, requires_grad=True)
        hard = quantizer.eval()(x)
        quantizer.train().set_mode(Mode.FIXED)
        out = quantizer(x)
        torch.testing.assert_close(out, hard, rtol=0, atol=0)
        out.sum().backward()
        for tensor in (x, *quantizer.parameters()):
            assert tensor.grad is not None
            assert not tensor.grad.any()

    def test_learned_gives_gradients_to_input_and_scales(self):
        quantizer, x = quantizer_of(), torch.randn(64, requires_grad=True)
        quantizer(x).square().sum().backward()
        assert x.grad.abs().sum() > 0
        assert quantizer.log_alpha.grad != 0
        assert quantizer.log_beta.grad != 0

    def test_zeros_only_where_gradients_are_asked_for(self):
        quantizer, x = quantizer_of().requires_grad_(False), torch.randn(4, requires_grad=True)
        for mode in Mode:
            quantizer.set_mode(mode)
            quantizer(x).sum().backward()
        assert x.grad is not None
        assert all(parameter.grad is None for parameter in quantizer.parameters())

    def test_soft_evaluation_holds_within_the_block_only(self):
        quantizer, x = quantizer_of(), torch.randn(64)
        model = holder(quantizer)
        soft = quantizer(x)
        hard = model.eval().q(x)
        assert not torch.equal(soft, hard)
        with soft_evaluation(model):
            torch.testing.assert_close(quantizer(x), soft, rtol=0, atol=0)
        torch.testing.assert_close(quantizer(x), hard, rtol=0, atol=0)

    def test_soft_evaluation_of_what_is_fixed_is_hard_as_in_training(self):
        quantizer, x = quantizer_of(), torch.randn(64)
        quantizer.set_mode(Mode.FIXED)
        trained = quantizer(x)
        model = holder(quantizer).eval()
        with soft_evaluation(model):
            torch.testing.assert_close(model.q(x), trained, rtol=0, atol=0)

    def test_soft_evaluation_ends_with_an_exception_too(self):
        model = holder(quantizer_of().eval())
        with pytest.raises(KeyError), soft_evaluation(model):
            raise KeyError
        assert not model.q.evaluate_soft

    @pytest.mark.parametrize('temperature', [3.0, 60.0])
    def test_surrogate_gradients_once_the_function_is_sharper(self, temperature):
        quantizer = quantizer_of(surrogate_temperature=6.0)
        quantizer.set_temperature(temperature)
        x = torch.linspace(-1, 3, 50, requires_grad=True)
        y = quantizer(x)
        function = quantizer.levels, quantizer.thresholds, quantizer.alpha, quantizer.beta
        torch.testing.assert_close(y, soft_quantize(x, *function, temperature))
        found = torch.autograd.grad(y.sum(), [x, quantizer.log_alpha])
        smooth = soft_quantize(x, *function, min(temperature, 6.0))
        expected = torch.autograd.grad(smooth.sum(), [x, quantizer.log_alpha])
        torch.testing.assert_close(found, expected)

    def test_observer_sees_the_input_and_lets_it_pass(self):
        quantizer, x, seen = quantizer_of(), torch.randn(4), []
        quantizer.observer = seen.append
        assert quantizer(x) is x
        assert seen[0] is x


class TestContract:
    @settings(max_examples=60, deadline=None)
    @given(
        levels=st.sampled_from(LEVELS),
        beta=st.floats(2**-10, 2**10),
        x=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200),
    )
    def test_codes_levels_and_alpha_are_the_hard_forward(self, levels, beta, x):
        quantizer = ready(QuantizationNetwork(weight_config(levels)), beta).eval()
        x = torch.tensor(x)
        codes = quantizer.codes(x)
        assert codes.min() >= 0
        assert codes.max() <= len(quantizer.thresholds)
        expected = quantizer.alpha * quantizer.levels[codes.long()]
        torch.testing.assert_close(quantizer(x), expected, rtol=0, atol=0)

    def test_the_same_at_and_beside_every_threshold(self):
        q = ready(QuantizationNetwork(weight_config('int8')), 0.3).eval()
        at = q.thresholds / q.beta
        inf = torch.tensor(float('inf'))
        x = torch.cat([at, at.nextafter(inf), at.nextafter(-inf), -inf[None], inf[None]])
        expected = q.alpha * q.levels[q.codes(x).long()]
        torch.testing.assert_close(q(x), expected, rtol=0, atol=0)

    def test_per_channel_scales(self):
        quantizer = QuantizationNetwork(weight_config(granularity='channel'), (5, 1, 1, 1))
        q, x = ready(quantizer).eval(), torch.randn(5, 3, 2, 2)
        with torch.no_grad():
            q.log_beta.copy_(torch.randn(5, 1, 1, 1))
        expected = q.alpha * q.levels[q.codes(x).long()]
        torch.testing.assert_close(q(x), expected, rtol=0, atol=0)
        for channel in range(5):
            single = quantizer_of().eval()
            single.load_state_dict(
                {k: v[channel].squeeze() if v.dim() > 1 else v for k, v in q.state_dict().items()}
            )
            torch.testing.assert_close(q(x)[channel], single(x[channel]), rtol=0, atol=0)

    def test_calibration_by_hand_sets_alpha_to_the_inverse_of_beta(self):
        quantizer = quantizer_of()
        torch.testing.assert_close(quantizer.beta, torch.tensor(2.0))
        torch.testing.assert_close(quantizer.alpha, torch.tensor(0.5))
        assert quantizer.is_calibrated
        assert quantizer.num_bits == 3

    def test_scales_stay_positive_whatever_the_optimizer_does(self):
        quantizer = quantizer_of()
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
        for _ in range(3):
            optimizer.zero_grad()
            (1e3 * (quantizer.alpha + quantizer.beta)).backward()
            torch.nn.utils.clip_grad_norm_(quantizer.parameters(), 20.0)
            optimizer.step()
        assert 0 < quantizer.alpha < 0.1
        assert 0 < quantizer.beta < 0.1

    def test_empty_inputs_pass(self):
        quantizer = quantizer_of()
        for training in (True, False):
            x = torch.empty(0, 4, requires_grad=True)
            out = quantizer.train(training)(x)
            assert out.shape == (0, 4)
            if training:
                out.sum().backward()
                assert quantizer.log_alpha.grad == 0

    @pytest.mark.parametrize('mode', list(Mode))
    def test_autocast_computes_in_float32(self, mode):
        quantizer = quantizer_of('int8').train()
        quantizer.set_mode(mode)
        quantizer.set_temperature(200.0)
        x = torch.randn(256).bfloat16().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            out = quantizer(x)
        torch.testing.assert_close(out.float(), quantizer(x.detach().float()), rtol=0, atol=0)
        out.float().sum().backward()
        assert x.grad.dtype is torch.bfloat16

    def test_wrong_temperatures(self):
        for value in (0, -1.0, float('nan'), float('inf')):
            with pytest.raises(ValueError, match=f'`temperature` should be .*but got {value}'):
                quantizer_of().set_temperature(value)


class TestUncalibrated:
    @pytest.mark.parametrize('training', [True, False])
    def test_forward_says_what_to_do(self, training):
        quantizer = QuantizationNetwork(weight_config()).train(training)
        with pytest.raises(RuntimeError, match=r'not been calibrated.*checkpoint.*CalibrationHook'):
            quantizer(torch.randn(3))

    def test_codes_too(self):
        with pytest.raises(RuntimeError, match='not been calibrated'):
            QuantizationNetwork(weight_config()).codes(torch.randn(3))

    def test_float_mode_needs_no_calibration(self):
        quantizer, x = QuantizationNetwork(weight_config()), torch.randn(3)
        quantizer.set_mode(Mode.FLOAT)
        assert torch.equal(quantizer(x), x)


class TestSignedInputs:
    def test_calibration_chooses_the_levels(self):
        unsigned = ready(QuantizationNetwork(activation_config('uint2')), signed=False)
        config = activation_config('uint2', thresholds='uniform', signed_levels='symmetric')
        signed = ready(QuantizationNetwork(config), signed=True)
        assert unsigned.levels.tolist() == [0, 1, 2, 3]
        assert signed.levels.tolist() == [-2, -1, 0, 1]

    @pytest.mark.parametrize('bits', [2, 4])
    @pytest.mark.parametrize('scale_init', ['range', 'mse'])
    @pytest.mark.parametrize('thresholds', ['kmeans', 'uniform'])
    def test_the_automatic_set_is_no_worse_than_the_symmetric_one(
        self, bits, scale_init, thresholds
    ):
        x = F.silu(2 * torch.randn(1, 2**12, generator=torch.Generator().manual_seed(bits)))
        sample = Sample(x, x.abs().amax(1), signed=True)

        def error(signed_levels):
            config = activation_config(
                f'uint{bits}',
                scale_init=scale_init,
                signed_levels=signed_levels,
                thresholds=thresholds,
            )
            quantizer = QuantizationNetwork(config)
            quantizer.initialize(sample)
            return (quantizer.eval()(x) - x).square().mean()

        assert error('auto') <= error('symmetric')
        if thresholds == 'kmeans':
            centre = 2 ** (bits - 1)
            sets = [[i - shift for i in range(2**bits)] for shift in (centre, centre - 0.5)]
            assert error('symmetric') == min(map(error, sets))

    def test_any_range_loads_from_a_checkpoint(self):
        config = activation_config('uint4', thresholds='uniform', scale_init='mse')
        x = F.silu(2 * torch.randn(1, 2**10, generator=torch.Generator().manual_seed(0)))
        source, target = QuantizationNetwork(config), QuantizationNetwork(config)
        source.initialize(Sample(x, x.abs().amax(1), signed=True))
        assert source.levels[0] == -1
        target.load_state_dict(source.state_dict())
        assert torch.equal(target.levels, source.levels)
        assert 'levels=16: -1..14' in repr(target)
        symmetric = QuantizationNetwork(dataclasses.replace(config, signed_levels='symmetric'))
        with pytest.raises(ValueError, match=r'holds 16 levels -1\.\.14'):
            symmetric.load_state_dict(source.state_dict())

    def test_signed_inputs_left_in_float(self):
        quantizer = ready(
            QuantizationNetwork(activation_config('uint2', signed_levels=None)), signed=True
        )
        x = torch.randn(8, requires_grad=True)
        assert not quantizer.is_active
        assert quantizer.is_calibrated
        out = quantizer(x)
        assert torch.equal(out, x)
        out.sum().backward()
        assert quantizer.log_alpha.grad == 0
        assert torch.equal(quantizer.eval()(x), x)


class TestStateDict:
    @pytest.mark.parametrize('learn_thresholds', [False, True])
    @pytest.mark.parametrize('signed', [False, True])
    @pytest.mark.parametrize('signed_levels', ['auto', None])
    def test_round_trip(self, learn_thresholds, signed, signed_levels):
        config = activation_config(
            'uint3', learn_thresholds=learn_thresholds, signed_levels=signed_levels
        )
        source = ready(QuantizationNetwork(config), 0.7, signed)
        source.set_mode(Mode.FIXED)
        source.set_temperature(17.0)
        target = QuantizationNetwork(config)
        assert not target.is_calibrated
        target.load_state_dict(source.state_dict())
        assert set(source.state_dict()) == set(target.state_dict())
        for key, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[key], value), key
        x = torch.randn(50)
        for training in (True, False):
            assert torch.equal(source.train(training)(x), target.train(training)(x))
        target.set_mode(Mode.LEARNED)
        source.set_mode(Mode.LEARNED)
        assert torch.equal(source.train()(x), target.train()(x))  # the temperature too

    @pytest.mark.parametrize('levels', LEVELS)
    def test_every_level_set_loads_its_own_checkpoint(self, levels, tmp_path):
        source = quantizer_of(levels)
        torch.save(source.state_dict(), tmp_path / 'q.pth')
        target = QuantizationNetwork(weight_config(levels))
        target.load_state_dict(torch.load(tmp_path / 'q.pth'))
        assert torch.equal(target.levels, source.levels)

    @pytest.mark.parametrize('how', ['torch', 'mmengine'])
    def test_another_bit_width_is_refused(self, how, tmp_path):
        saved = holder(quantizer_of('pm4'))
        model = holder(QuantizationNetwork(weight_config('ternary')))
        message = (
            r'`q\.levels` holds 7 levels -4\.\.4, but the config quantizes to 3 levels -1\.\.1'
        )
        with pytest.raises(ValueError, match=message):
            self.load(how, model, saved, tmp_path)
        assert not model.q.is_calibrated

    @pytest.mark.parametrize('how', ['torch', 'mmengine'])
    def test_other_levels_of_the_same_number_are_refused(self, how, tmp_path):
        saved, model = holder(quantizer_of('pm2')), holder(quantizer_of([-4, -1, 0, 1, 4]))
        with pytest.raises(ValueError, match=r'`q\.levels`'):
            self.load(how, model, saved, tmp_path)

    @pytest.mark.parametrize('how', ['torch', 'mmengine'])
    def test_another_granularity_is_refused(self, how, tmp_path):
        saved = holder(quantizer_of('pm4'))
        model = holder(
            QuantizationNetwork(weight_config('pm4', granularity='channel'), (4, 1, 1, 1))
        )
        with pytest.raises(ValueError, match=r'`q\.log_alpha`.*granularity'):
            self.load(how, model, saved, tmp_path)
        assert not model.q.is_calibrated

    @staticmethod
    def load(how, model, saved, folder):
        if how == 'torch':
            model.load_state_dict(saved.state_dict())
        else:
            torch.save(dict(state_dict=saved.state_dict()), folder / 'saved.pth')
            load_checkpoint(model, str(folder / 'saved.pth'))

    def test_a_float_checkpoint_lacks_nothing(self):
        model = holder(quantizer_of())
        model.conv = nn.Conv2d(1, 1, 1)
        before = {k: v.clone() for k, v in model.q.state_dict().items()}
        float_state = {k: v + 1 for k, v in model.conv.state_dict(prefix='conv.').items()}
        model.load_state_dict(float_state, strict=True)
        assert torch.equal(model.conv.weight, float_state['conv.weight'])
        assert all(torch.equal(before[k], v) for k, v in model.q.state_dict().items())

    def test_half_a_quantizer_is_refused(self):
        state = holder(quantizer_of()).state_dict()
        del state['q.log_beta']
        with pytest.raises(ValueError, match=r'lacks `q\.log_beta`.*another type'):
            holder(QuantizationNetwork(weight_config())).load_state_dict(state)

    @pytest.mark.parametrize('copy_of', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_are_their_own(self, copy_of):
        source, x = quantizer_of(), torch.randn(20)
        source.set_temperature(5.0)
        clone = copy_of(source)
        assert torch.equal(source(x), clone(x))
        clone.set_mode(Mode.FLOAT)
        assert source.is_active


class TestLearnedThresholds:
    def overtaken(self):
        """A quantizer of which an optimizer has put a threshold past the next one."""
        quantizer = quantizer_of('pm2', learn_thresholds=True)
        with torch.no_grad():
            quantizer.thresholds[1] = 0.9
        return quantizer

    def test_they_are_trained(self):
        quantizer, x = quantizer_of('pm2', learn_thresholds=True), torch.randn(64)
        quantizer(x).square().sum().backward()
        assert quantizer.thresholds.grad.abs().min() > 0

    @pytest.mark.parametrize('training', [True, False])
    def test_the_function_has_them_in_order(self, training):
        quantizer = self.overtaken().train(training)
        x = torch.linspace(-2, 2, 101)
        out = quantizer(x)
        assert (quantizer.staircase(x).thresholds.diff() >= 0).all()
        assert (out.diff() >= 0).all()

    def test_codes_change_nothing(self):
        quantizer = self.overtaken()
        before = {key: value.clone() for key, value in quantizer.state_dict().items()}
        quantizer.codes(torch.randn(8))
        assert all(torch.equal(before[k], v) for k, v in quantizer.state_dict().items())

    def test_codes_agree_with_forward(self):
        quantizer, x = self.overtaken().eval(), torch.linspace(-2, 2, 101)
        codes = quantizer.codes(x)
        expected = quantizer.alpha * quantizer.levels[codes.long()]
        torch.testing.assert_close(quantizer(x), expected, rtol=0, atol=0)
        assert (codes.diff() >= 0).all()

    def test_two_calls_in_one_backward_pass(self):
        """Heads share a layer between levels of a pyramid."""
        quantizer = quantizer_of('pm2', learn_thresholds=True)
        x = torch.randn(64, requires_grad=True)
        (quantizer(x) + quantizer(2 * x)).sum().backward()
        assert x.grad.isfinite().all()
        assert quantizer.thresholds.grad.abs().sum() > 0

    def test_frozen_thresholds_are_no_parameter(self):
        quantizer = quantizer_of('pm2')
        assert dict(quantizer.named_parameters()).keys() == {'log_alpha', 'log_beta'}
        assert 'thresholds' in quantizer.state_dict()


def test_quantizers_of_names_each_once():
    model = nn.Module()
    model.a = model.b = QuantizationNetwork(weight_config())
    model.c = QuantizationNetwork(weight_config())
    assert list(quantizers_of(model)) == ['a', 'c']


@pytest.mark.parametrize('temperature', [2.0, 1e4])
def test_the_gradient_in_evaluation_is_that_of_the_training(temperature):
    """For class activation maps and attributions."""
    quantizer = quantizer_of(surrogate_temperature=3)
    quantizer.set_temperature(temperature)
    values, weights = torch.randn(2, 50)
    gradients = []
    for training in (True, False):
        x = values.clone().requires_grad_()
        out = quantizer.train(training)(x)
        (out * weights).sum().backward()
        gradients.append([x.grad, quantizer.log_alpha.grad, quantizer.log_beta.grad])
        quantizer.zero_grad()
    assert torch.equal(out, quantizer.staircase(values).quantize(values))
    for trained, evaluated in zip(*gradients, strict=True):
        assert trained.abs().sum() > 0
        assert torch.equal(trained, evaluated)
    with torch.no_grad():
        assert not quantizer(values).requires_grad


def test_a_signed_input_with_listed_thresholds():
    x = torch.randn(1, 4000)
    errors = {}
    for thresholds in ([0.5, 1.5, 2.5], 'uniform'):
        config = activation_config('uint2', thresholds=thresholds, signed_levels='symmetric')
        quantizer = QuantizationNetwork(config)
        quantizer.initialize(Sample(x, x.abs().amax(1), True))
        errors[str(thresholds)] = (quantizer.eval()(x) - x).square().sum()
        assert quantizer.thresholds.tolist() == [-1.5, -0.5, 0.5]
    assert errors['[0.5, 1.5, 2.5]'] == errors['uniform']


def test_a_dead_channel_in_half_precision():
    rows = torch.randn(4, 60)
    rows[2] = 0
    quantizer = QuantizationNetwork(weight_config('int8', granularity='channel'), (4, 1))
    quantizer.initialize(Sample(rows, rows.abs().amax(1), True))
    out = quantizer.half().eval()(rows.half())
    assert out.isfinite().all()
    assert not out[2].any()
