"""Quantized weights of an evaluation, computed once and never used stale."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class WeightCache:
    """Holds one tensor as long as its sources keep their values.

    A tensor's version counter misses writes through ``.data``, which MMEngine's ``EMAHook`` makes
    when it swaps weights, and a checksum misses some changes (swapped values, for example). So the
    sources are compared with a copy: less than half the time of quantizing them again.
    """

    def __init__(self) -> None:
        self._sources: list[Tensor] = []
        self._variant: object = None
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
        if self._value is None or variant != self._variant or not self._holds(sources):
            self._value = compute()
            self._variant = variant
            self._sources = [source.detach().clone() for source in sources]
        return self._value

    def clear(self) -> None:
        """Forgets the tensor and frees its memory."""
        self.__init__()  # type: ignore[misc]

    def _holds(self, sources: Sequence[Tensor]) -> bool:
        return len(sources) == len(self._sources) and all(
            new.device == old.device and new.dtype == old.dtype and torch.equal(new, old)
            for new, old in zip(sources, self._sources, strict=True)
        )

    def __deepcopy__(self, memo: dict[int, object]) -> 'WeightCache':
        return WeightCache()

    def __reduce__(self) -> tuple[type['WeightCache'], tuple[()]]:
        return WeightCache, ()
