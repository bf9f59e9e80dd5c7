"""Quantized weights of an evaluation, computed once and never used stale."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmqnet.ops import fingerprint


class WeightCache:
    """Holds one tensor as long as its sources keep their values.

    A tensor's version counter misses writes through ``.data``, which MMEngine's ``EMAHook`` makes
    when it swaps weights. So all values of the sources are looked at: through a fingerprint of
    them, or, where the kernel cannot take it, in a comparison with a copy.
    """

    def __init__(self) -> None:
        self._fingerprint: Tensor | None = None
        self._copies: list[Tensor] = []
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
        found = fingerprint(sources)
        if self._value is None or variant != self._variant or not self._holds(sources, found):
            self._value = compute()
            self._variant = variant
            self._fingerprint = found
            copied = sources if found is None else ()
            self._copies = [source.detach().clone() for source in copied]
        return self._value

    def clear(self) -> None:
        """Forgets the tensor and frees its memory."""
        self.__init__()  # type: ignore[misc]

    def _holds(self, sources: Sequence[Tensor], found: Tensor | None) -> bool:
        if found is not None:
            return self._fingerprint is not None and torch.equal(found, self._fingerprint)
        return len(sources) == len(self._copies) and all(
            new.device == old.device and new.dtype == old.dtype and torch.equal(new, old)
            for new, old in zip(sources, self._copies, strict=True)
        )

    def __deepcopy__(self, memo: dict[int, object]) -> 'WeightCache':
        return WeightCache()

    def __reduce__(self) -> tuple[type['WeightCache'], tuple[()]]:
        return WeightCache, ()
