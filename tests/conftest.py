"""What all tests share."""

import logging
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from fork_server import ForkServer
from quick_start import make_quick

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported, for the processes that tests start too: the models are small, and
# `make test` runs as many tests at once as there are cores.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# Before Triton is imported: its kernels run in its interpreter, on tensors of the CPU. With
# TRITON_INTERPRET=0 on a machine with a GPU they are compiled and tested there.
os.environ.setdefault('TRITON_INTERPRET', '1')


@pytest.fixture(autouse=True)
def _clean_mmengine_state():
    """Forget scope, messages, visualizers and loggers, which MMEngine keeps for the process."""
    yield
    if 'mmengine' not in sys.modules:
        return
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope

    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
    kinds = [MMLogger, MessageHub, DefaultScope]
    if 'mmengine.visualization' in sys.modules:
        kinds.append(sys.modules['mmengine.visualization'].Visualizer)
    while kinds:
        kind = kinds.pop()
        kind._instance_dict.clear()  # each subclass has one of its own
        kinds += kind.__subclasses__()


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Make random tensors the same in every run."""
    if 'torch' in sys.modules:
        sys.modules['torch'].manual_seed(0)
    if 'numpy' in sys.modules:
        sys.modules['numpy'].random.seed(0)


@pytest.fixture(scope='session')
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def server(root, tmp_path_factory):
    """Return what runs our tools in forks of one process: its imports take most of their time."""
    server = ForkServer(root, tmp_path_factory.mktemp('server'))
    yield server
    server.close()


@pytest.fixture(scope='session')
def run_python():
    """Run code in a new Python and return what it printed; its failure is the test's.

    The environment may repair torchvision at start-up (``scripts/setup_env.py``), without importing
    mmqnet. ``startup=False`` leaves that out.
    """

    def run(code: str, startup: bool = True, timeout: float = 300) -> str:
        packages = sysconfig.get_paths()['purelib']
        path = os.pathsep.join([str(ROOT), packages])
        result = subprocess.run(
            [sys.executable, *([] if startup else ['-S']), '-c', textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, 'PYTHONPATH': path},
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run


# Their tests start processes or train many models: they begin first, so that no core ends up with
# one of them alone.
LONGEST_FILES = (
    'test_configs.py',
    'test_detection.py',
    'test_train_test.py',
    'test_notebook.py',
    'test_tutorials.py',
    'test_hooks.py',
    'test_families.py',
    'test_benchmarks.py',
    'test_distributed.py',
    'test_batch_norm_reestimation.py',
    'test_quantized_model.py',
)


def pytest_collection_finish():
    """Prepare the process when all test files are imported."""
    make_quick()


def pytest_collection_modifyitems(items):
    """Put the longest files first, and skip what needs a GPU where there is none."""
    places = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if not any('gpu' in item.keywords for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))
