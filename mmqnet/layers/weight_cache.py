"""Quantized weights of an evaluation, computed once and never used stale."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class WeightCache:
    """Holds one tensor as long as its sources keep their values.

    A tensor's version counter misses writes through ``.data``, which MMEngine's ``EMAHook`` makes
    when it swaps weights. So the sources' contents are compared as well, by their sums of bits: one
    read of the weights instead of reading, quantizing and writing them.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._value: Tensor | None = None

    def get(
        self, sources: Sequence[Tensor], variant: object, compute: Callable[[], Tensor]
    ) -> Tensor:
        """Returns the held tensor, or a new one if anything has changed.

        Args:
            sources: All tensors that ``compute`` reads.
            variant: Anything else on which its result depends.
            compute: Makes the tensor.
        """
        key = (variant, torch.is_autocast_enabled(), *(_fingerprint(s) for s in sources))
        if self._value is None or key != self._key:
            self._value = compute()
            self._key = key
        return self._value

    def clear(self) -> None:
        """Forgets the tensor and frees its memory."""
        self._key = self._value = None

    def __deepcopy__(self, memo: dict[int, object]) -> 'WeightCache':
        return WeightCache()

    def __reduce__(self) -> tuple[type['WeightCache'], tuple[()]]:
        return WeightCache, ()


def _fingerprint(tensor: Tensor) -> tuple[object, ...]:
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    flat = tensor.detach()
    content = flat.view(bits) if bits is not None else flat
    return tensor.data_ptr(), tensor._version, tensor.device, int(content.sum())
