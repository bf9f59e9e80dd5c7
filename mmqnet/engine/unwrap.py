"""The models inside a runner."""

from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model itself, or the one inside DistributedDataParallel or another wrapper."""
    inner = model.module if is_model_wrapper(model) else model
    assert isinstance(inner, nn.Module)
    return inner


def with_averages(runner: Runner) -> list[nn.Module]:
    """Return the model that is trained, and the averages of it that EMAHooks keep.

    With ``update_buffers=True`` EMAHook never copies a buffer of integers, such as a mode, and
    makes averages of others, such as a temperature; and it is the average that is saved.
    """
    averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    return [unwrap(runner.model), *averages]
