"""Keeps what named modules of a model return."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Recorder:
    """Record the outputs of modules, from :meth:`start` to :meth:`stop`.

    It takes part in the forward passes until :meth:`remove`.

    Args:
        model: With the modules.
        names: Their dotted names.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._outputs: dict[str, list[Tensor]] | None = None
        self._handles: list[RemovableHandle] = [
            model.get_submodule(name).register_forward_hook(partial(self._keep, name))
            for name in names
        ]

    def start(self) -> None:
        """Begin to record, with nothing recorded."""
        self._outputs = {name: [] for name in self._names}

    def stop(self) -> dict[str, list[Tensor]]:
        """Return the tensors of each module, of all its calls, and forget them."""
        outputs, self._outputs = self._outputs, None
        return outputs or {}

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if self._outputs is not None:
            self._outputs[name] += tensors_of(output)


def tensors_of(output: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dicts, in their order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from tensors_of(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from tensors_of(item)
