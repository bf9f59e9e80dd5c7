"""Quantized weights of an evaluation, computed once."""

from collections.abc import Callable, Sequence

from torch import Tensor


class WeightCache:
    """Hold one tensor as long as its sources are not written to.

    By their version counters, which miss writes through ``.data`` (MMEngine's ``EMAHook`` swaps
    weights so). Its owner clears it whenever it is set to training or evaluation.
    """

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._variant: object = None
        self._versions: list[int] = []
        self._sources: Sequence[Tensor] = ()

    def get(
        self, sources: Sequence[Tensor], variant: object, compute: Callable[[], Tensor]
    ) -> Tensor:
        """Return the held tensor, or a new one if anything has changed.

        Sources that were made within ``torch.inference_mode()`` count no versions: nothing is held.

        Args:
            sources: All tensors that ``compute`` reads.
            variant: Anything else on which its result depends.
            compute: Makes the tensor.
        """
        if any(tensor.is_inference() for tensor in sources):
            return compute()
        versions = [tensor._version for tensor in sources]
        if (
            self._value is None
            or variant != self._variant
            or versions != self._versions
            or any(new is not old for new, old in zip(sources, self._sources, strict=True))
        ):
            self._value = compute()
            self._variant, self._versions, self._sources = variant, versions, sources
        return self._value

    def clear(self) -> None:
        """Forget the tensor and free its memory."""
        self.__init__()  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, object]) -> 'WeightCache':
        return WeightCache()

    def __reduce__(self) -> tuple[type['WeightCache'], tuple[()]]:
        return WeightCache, ()
