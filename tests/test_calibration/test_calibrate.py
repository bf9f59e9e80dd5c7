"""Calibration of a whole model, on one process and on two."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_models import activation_config, build, quantized, resnet, weight_config

from mmqnet.calibration import calibrate, match_outputs, reestimate_batch_norm
from mmqnet.layers import QuantLinear
from mmqnet.quantizers import Mode, quantizers_of


class Net(nn.Module):
    """Two layers; the second one sees what a ReLU lets pass."""

    def __init__(self, relu=True):
        super().__init__()
        self.first = QuantLinear.from_float(nn.Linear(6, 16), None, activation_config('uint4'))
        self.norm = nn.BatchNorm1d(16)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.second = QuantLinear.from_float(
            nn.Linear(16, 3), weight_config(), activation_config('uint4')
        )

    def forward(self, x):
        return self.second(self.drop(self.relu(self.norm(self.first(x)))))


def batches(count=4, scale=1.0):
    generator = torch.Generator().manual_seed(5)
    return [scale * torch.randn(32, 6, generator=generator) for _ in range(count)]


def test_all_quantizers_once():
    net = Net()
    names = calibrate(net, batches(), net)
    assert names == list(quantizers_of(net))
    state = {k: v.clone() for k, v in net.state_dict().items()}
    assert calibrate(net, batches(scale=9.0), net) == []
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_only_those_that_are_left():
    net = Net()
    calibrate(net, batches(), net)
    net.second.input_quantizer.calibrated.fill_(False)
    net.second.input_quantizer.refresh()
    first = net.first.input_quantizer.log_beta.clone()
    assert calibrate(net, batches(scale=9.0), net) == ['second.input_quantizer']
    assert torch.equal(net.first.input_quantizer.log_beta, first)


@pytest.mark.parametrize('relu', [True, False])
def test_signed_and_unsigned_inputs(relu):
    net = Net(relu)
    calibrate(net, batches(), net)
    assert net.first.input_quantizer.levels[0] < 0  # signed data
    assert bool(net.second.input_quantizer.levels[0] < 0) is not relu
    assert len(net.second.input_quantizer.levels) == 16


@torch.no_grad()
def test_scales_of_inputs_come_from_float_evaluation():
    net = Net().train()
    net.norm.running_mean.fill_(0.3)
    seen = []
    net.second.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    calibrate(net, batches(), net)
    largest = max(x.abs().max() for x in seen)
    torch.testing.assert_close(net.second.input_quantizer.beta, 1.25 * 15 / largest)
    seen.clear()
    net.eval()
    for module in quantizers_of(net).values():
        module.set_mode(Mode.FLOAT)
    for x in batches():
        net(x)
    torch.testing.assert_close(max(x.abs().max() for x in seen), largest)


@torch.no_grad()
def test_inputs_are_measured_on_weights_as_they_are_quantized():
    """A trained w3-a32 model that is calibrated for w3-a8: its latent weights mean nothing."""
    net = Net().eval()
    net.first.add_quantizers(weight_config(), None)
    net.second.add_quantizers(weight_config(), None)
    calibrate(net, batches(), net)
    net.first.weight_quantizer.log_alpha.add_(1.0)  # training has moved it
    net.second.add_quantizers(net.second.weight_quantizer, activation_config('uint4'))
    net.eval()
    hard = max(net.relu(net.norm(net.first(x))).abs().max() for x in batches())
    assert calibrate(net, batches(), net) == ['second.input_quantizer']
    torch.testing.assert_close(net.second.input_quantizer.beta, 1.25 * 15 / hard)


def test_quantizers_that_a_phase_leaves_in_float_wait():
    net = Net()
    inputs = net.first.input_quantizer, net.second.input_quantizer
    for quantizer in inputs:
        quantizer.set_mode(Mode.FLOAT)
    assert calibrate(net, batches(), net) == ['second.weight_quantizer']
    for quantizer in inputs:
        quantizer.set_mode(Mode.LEARNED)
    assert len(calibrate(net, batches(), net)) == 2


def test_the_model_is_left_as_it_was():
    net = Net().train()
    net.norm.eval()  # as with norm_eval
    before = {k: v.clone() for k, v in net.norm.state_dict().items()}
    state = torch.get_rng_state()
    calibrate(net, batches(), net)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert net.drop.training
    assert not net.norm.training
    assert all(torch.equal(v, before[k]) for k, v in net.norm.state_dict().items())
    assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())


def test_observers_are_gone_after_an_error():
    net = Net()
    with pytest.raises(ValueError, match=r'`first\.input_quantizer`.*NaN'):
        calibrate(net, [torch.full((2, 6), float('nan'))], net)
    assert all(quantizer.observer is None for quantizer in quantizers_of(net).values())
    assert net.training


def test_activations_that_overflow_name_the_layer():
    net = Net().eval()
    net.norm.weight.data.fill_(3e38)
    with pytest.raises(ValueError, match=r'`second\.input_quantizer` holds NaN or infinite'):
        calibrate(net, batches(), net)


def test_a_layer_that_is_never_called():
    net = Net()
    with pytest.raises(ValueError, match=r'never called 1 of .*`second`\..*exclude'):
        calibrate(net, batches(), lambda x: net.first(x))


def test_an_input_that_is_always_empty():
    net = Net()
    with pytest.raises(ValueError, match=r'`first\.input_quantizer` has seen no input .*or empty'):
        calibrate(net, [torch.empty(0, 6)], net)


def test_inputs_that_are_all_zero():
    net = Net()
    net.norm.bias.data.fill_(-100.0)  # a dead ReLU
    calibrate(net, batches(), net)
    net.eval()
    assert net(batches()[0]).isfinite().all()


def test_signed_inputs_left_in_float():
    net = Net()
    net.first = QuantLinear.from_float(
        nn.Linear(6, 16), None, activation_config('uint4', signed_levels=None)
    )
    calibrate(net, batches(), net)
    assert not net.first.input_quantizer.is_active
    assert net.second.input_quantizer.is_active
    x = batches()[0]
    assert torch.equal(
        net.eval().first(x), nn.functional.linear(x, net.first.weight, net.first.bias)
    )


def test_progress_wraps_the_batches():
    seen = []
    net = Net()
    calibrate(net, batches(3), net, lambda items: [seen.append(1) or item for item in items])
    assert len(seen) == 3


def test_weights_alone_need_no_batch():
    backbone = build(quantized(resnet(), weight=dict(levels='ternary'), keep_float=['first']))
    calibrate(backbone, iter(()), None)
    assert all(quantizer.is_calibrated for quantizer in quantizers_of(backbone).values())


PROCESS = """
import sys, torch
import torch.distributed as dist
from test_calibrate import Net, batches
from mmqnet.calibration import calibrate, match_outputs, reestimate_batch_norm
from mmqnet.quantizers import Mode, quantizers_of
from torch.profiler import profile

dist.init_process_group('gloo')
rank = dist.get_rank()
torch.manual_seed(0)
net = Net()
with profile(record_shapes=True) as recorded:
    names = calibrate(net, batches(6)[rank::2], net)
gathered = [e.input_shapes[0][0] for e in recorded.events() if e.name == 'gloo:all_gather']
torch.save(max(gathered), f'{sys.argv[1]}/largest{rank}.pth')
torch.save(net.state_dict(), f'{sys.argv[1]}/calibrated{rank}.pth')
# one brings two batches, the other three
reestimate_batch_norm(net, batches(5)[2 * rank : 2 + 3 * rank], net)
torch.save(net.state_dict(), f'{sys.argv[1]}/reestimated{rank}.pth')
match_outputs(net, names, batches(6)[rank::2], net)
torch.save(net.state_dict(), f'{sys.argv[1]}/matched{rank}.pth')


def note_error(name, net, samples, work=calibrate):
    try:
        work(net, samples, net)
    except Exception as error:
        torch.save(f'{type(error).__name__}: {error}', f'{sys.argv[1]}/{name}{rank}.pth')


note_error('damaged', net, [None] if rank else batches(), reestimate_batch_norm)
# the samples of one process are broken
note_error('failure', Net(), [x * float('nan') if rank else x for x in batches()])
net = Net()
net.second.input_quantizer.set_mode(Mode.FLOAT if rank else Mode.LEARNED)
note_error('difference', net, batches())
net = Net()
for quantizer in quantizers_of(net).values():
    quantizer.set_mode(Mode.LEARNED if rank else Mode.FLOAT)
note_error('nothing', net, batches())
dist.barrier()
dist.destroy_process_group()  # its threads may abort a process that ends with them running
"""


@pytest.fixture(scope='module')
def processes(tmp_path_factory):
    """What each of two processes has: its model after calibration, after new batch statistics and
    with outputs that match, the bytes of the largest tensor that it sent at calibration, and the
    messages of errors."""
    folder = tmp_path_factory.mktemp('processes')
    script = folder / 'process.py'
    here = Path(__file__).resolve().parent
    script.write_text(
        f'import sys; sys.path[:0] = {[str(here), str(here.parent / "helpers")]}\n' + PROCESS
    )
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2',
               '--master-port=0', '--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0',
               str(script), str(folder)]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    steps = ('calibrated', 'largest', 'reestimated', 'matched')
    steps += ('failure', 'difference', 'nothing', 'damaged')
    return {step: [torch.load(folder / f'{step}{rank}.pth') for rank in (0, 1)] for step in steps}


@pytest.mark.parametrize('step', ['calibrated', 'reestimated', 'matched'])
def test_two_processes_end_with_the_same_bits(processes, step):
    first, second = processes[step]
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_two_processes_calibrate_on_the_range_of_all_samples(processes):
    torch.manual_seed(0)
    alone = Net()
    calibrate(alone, batches(6), alone)
    for key, value in alone.state_dict().items():
        if key.endswith(('log_alpha', 'log_beta', 'levels', 'calibrated')):
            assert torch.equal(value, processes['calibrated'][0][key]), key


def test_all_processes_stop_with_the_message_of_the_one_that_fails(processes):
    first, second = processes['failure']
    message = 'ValueError: the input of layer `first.input_quantizer` holds NaN or infinite values'
    assert second.startswith(message)
    assert first.startswith(f'RuntimeError: calibration failed on process 1 (this is 0): {message}')


def test_processes_that_calibrate_different_quantizers_stop(processes):
    message = 'RuntimeError: only some of the processes are to calibrate 1 of the quantizers, '
    for error in processes['difference']:
        assert error.startswith(f'{message}`second.input_quantizer` first')


def test_a_process_with_nothing_to_calibrate_stops_too(processes):
    for error in processes['nothing']:
        assert error.startswith('RuntimeError: only some of the processes are to calibrate 3 of ')


def test_all_processes_stop_where_the_statistics_of_one_fail(processes):
    first, second = processes['damaged']
    assert second.startswith('TypeError: ')
    message = 'the re-estimation of batch statistics failed on process 1 (this is 0)'
    assert first.startswith(f'RuntimeError: {message}: {second}')


def test_samples_travel_one_by_one(processes):
    """Those of a whole model would be GiB on each GPU."""
    inputs, hidden = 3 * 32 * 6, 3 * 32 * 16  # values of the two quantizers on each process
    assert all(8 * hidden < size < 8 * (inputs + hidden) for size in processes['largest'])


def test_two_processes_average_batch_statistics_over_all_batches(processes):
    alone = Net()
    alone.load_state_dict(processes['calibrated'][0])
    assert reestimate_batch_norm(alone, batches(5), alone) == ['norm']
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(processes['reestimated'][0][key], value)
    before = processes['calibrated'][0]['norm.running_mean']
    assert not torch.allclose(alone.norm.running_mean, before)


def test_two_processes_match_the_outputs_of_all_batches(processes):
    alone = Net()
    alone.load_state_dict(processes['reestimated'][0])
    assert match_outputs(alone, list(quantizers_of(alone)), batches(6), alone) == ['second']
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(processes['matched'][0][key], value)
    assert not torch.allclose(alone.second.bias, processes['reestimated'][0]['second.bias'])
