"""How processes join and leave each other."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmqnet.command_line import build_runner, leave_processes


@pytest.mark.parametrize(
    ('backend', 'wrapper', 'got'),
    [
        ('nccl', dict(device_ids=None), r"got 'nccl' and \{'device_ids': None\}"),
        ('gloo', None, "got 'gloo' and None"),
        ('gloo', dict(device_ids=[0]), r"got 'gloo' and \{'device_ids': \[0\]\}"),
    ],
)
def test_processes_without_gpus_need_gloo_and_no_devices(backend, wrapper, got, tmp_path):
    if get_device() != 'cpu':
        pytest.skip('there is a GPU')
    environment = dict(dist_cfg=dict(backend=backend))
    config = Config(dict(launcher='pytorch', work_dir=str(tmp_path), env_cfg=environment))
    if wrapper:
        config.model_wrapper_cfg = wrapper
    message = rf"`env_cfg\.dist_cfg\.backend` should be 'gloo' .*`model_wrapper_cfg` .*{got}"
    with pytest.raises(ValueError, match=message):
        build_runner(config)


def gloo_threads() -> int:
    """Return how many threads of this process wait for exchanges."""
    return sum('gloo' in file.read_text() for file in Path('/proc/self/task').glob('*/comm'))


def exchange_and_leave(rank, folder):
    """Two processes, a model that only the garbage collector frees."""
    store = f'file://{folder}/store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    model.forward = model  # a cycle
    del model
    torch.distributed.broadcast_object_list([rank])
    assert gloo_threads() > 0
    leave_processes()
    assert gloo_threads() == 0
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
def test_no_thread_of_an_exchange_is_left(tmp_path):
    torch.multiprocessing.start_processes(
        exchange_and_leave, (tmp_path,), nprocs=2, start_method='fork'
    )


def test_one_process_has_none_to_leave():
    leave_processes()
    assert not torch.distributed.is_initialized()
