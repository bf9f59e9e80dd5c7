"""The direct way: an evaluation of the model with one quantizer alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mmqnet.calibration import modes_kept
from mmqnet.quantizers import Mode, Quantizer, quantizers_of


@contextmanager
def quantizers_off(model: nn.Module) -> Iterator[None]:
    """Evaluate a converted model in float, whether it is calibrated or not, within the block."""
    modes = {quantizer: Mode(int(quantizer.mode)) for quantizer in quantizers_of(model).values()}
    with modes_kept(model):
        model.eval()
        try:
            for quantizer in modes:
                quantizer.set_mode(Mode.FLOAT)
            yield
        finally:
            for quantizer, mode in modes.items():
                quantizer.set_mode(mode)


@contextmanager
def replaced(model: nn.Module, name: str, alternative: Quantizer) -> Iterator[None]:
    """Let ``alternative`` act in the place of the quantizer ``name``, within the block."""
    handle = model.get_submodule(name).register_forward_hook(lambda _, args, __: alternative(*args))
    model.eval()  # which forgets the weights of the last evaluation
    try:
        yield
    finally:
        handle.remove()
        model.eval()
