"""What all quantizers are: mode, calibration state, observation, evaluation, loading.

A method (a subclass) says three things: how it is fitted to a sample (``fit``), what it does in
training (``learn``) and its hard function (``staircase``). All else follows from these, here.
"""

import abc
import contextlib
import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mmqnet.quantizers import level_sets
from mmqnet.quantizers.checkpoints import check_saved_quantizer
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.gradient import without_gradient
from mmqnet.quantizers.integer_ranges import shortlist
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.staircase import Staircase


class Mode(enum.IntEnum):
    """What a quantizer does in training; a phase of the training sets it."""

    FLOAT = 0  # passes its input unchanged, in evaluation too
    LEARNED = 1  # learns in training, hard function in evaluation
    FIXED = 2  # hard function without gradients in training, hard in evaluation


@runtime_checkable
class HasTemperature(Protocol):
    """A quantizer with a temperature, which :class:`TemperatureHook` sets."""

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature T > 0."""


class Quantizer(nn.Module, abc.ABC):
    """Quantization function of a layer's weights or of its input, by some method.

    Args:
        config: Levels and the rest, an instance of ``config_class``.
        scale_shape: Shape of the scales, broadcastable to the input. Default ``()``.

    Attributes:
        config_class: The config that the method takes; the keys of its dict in a config file.
        levels (Tensor): (n + 1,), buffer.
        mode (Tensor): 0-d buffer, a :class:`Mode`.
        enabled (Tensor): 0-d buffer; False for a signed input that is left in float.
        calibrated (Tensor): 0-d buffer; whether it has been fitted.
        observer (Callable or None): While set, every input is handed to it and passes unchanged.
        evaluate_soft (bool): Whether evaluation uses the training's function, see
            :func:`soft_evaluation`.
    """

    config_class: ClassVar[type[QuantizerConfig]] = QuantizerConfig

    levels: Tensor
    mode: Tensor
    enabled: Tensor
    calibrated: Tensor

    def __init__(self, config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.scale_shape = tuple(scale_shape)
        self.observer: Callable[[Tensor], None] | None = None
        self.evaluate_soft = False
        self.register_buffer('levels', torch.tensor(config.levels))
        self.register_buffer('mode', torch.tensor(int(Mode.LEARNED)))
        self.register_buffer('enabled', torch.tensor(True))
        self.register_buffer('calibrated', torch.tensor(False))
        if config.mark:
            self.register_buffer(config.mark, torch.ones(self.scale_shape, dtype=torch.bool))
        # not by refresh(): on the meta device the buffers hold nothing
        self._mode, self._enabled, self._calibrated = Mode.LEARNED, True, False

    @abc.abstractmethod
    def fit(self, sample: Sample) -> None:
        """Initialise what the method learns from a sample; ``levels`` is set by then.

        Called without recording gradients.
        """

    @abc.abstractmethod
    def learn(self, x: Tensor) -> Tensor:
        """Return the function of the training, which gradients pass (any shape)."""

    @abc.abstractmethod
    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function, which may depend on the tensor ``x`` that it is for."""

    def scalars(self) -> dict[str, Tensor]:
        """Return 0-d tensors to be logged, by name. Default: the means of the parameters."""
        return {name: parameter.mean() for name, parameter in self.named_parameters()}

    @property
    def num_bits(self) -> int:
        """Bits that one code takes."""
        return level_sets.num_bits(self.config.levels)

    @property
    def is_active(self) -> bool:
        """Whether it quantizes: enabled, and in a mode other than float."""
        return self._enabled and self._mode is not Mode.FLOAT

    @property
    def is_calibrated(self) -> bool:
        """Whether it has been fitted."""
        return self._calibrated

    def set_mode(self, mode: Mode) -> None:
        """Set what it does in training."""
        self.mode.fill_(int(mode))
        self.refresh()

    @torch.no_grad()
    def initialize(self, sample: Sample) -> None:
        """Choose the levels for a sample, and fit the method to it.

        Where the config allows several sets, the one of the least squared error is taken; of
        ranges of integers, two are tried, see :func:`shortlist`.
        """
        sets = shortlist(self.config.level_sets(sample.signed), sample.values)
        self.enabled.fill_(bool(sets))
        best = sets[0] if sets else self.config.levels
        if len(sets) > 1:
            best = min(sets, key=lambda levels: self._squared_error(levels, sample))
        self._fit_with(best, sample)
        self.calibrated.fill_(True)
        self.refresh()

    def _fit_with(self, levels: tuple[float, ...], sample: Sample) -> None:
        self.levels.copy_(torch.tensor(levels))
        self.fit(sample)

    def _squared_error(self, levels: tuple[float, ...], sample: Sample) -> float:
        self._fit_with(levels, sample)
        x = sample.values
        return float((self.staircase(x).quantize(x) - x).square().sum())

    def refresh(self) -> None:
        """Read the state from the buffers.

        It is kept as Python values, so that a forward pass never waits for the device. Whoever
        writes into the buffers calls this; ``load_state_dict`` does.
        """
        self._mode = Mode(int(self.mode))
        self._enabled = bool(self.enabled)
        self._calibrated = bool(self.calibrated)

    def codes(self, x: Tensor) -> Tensor:
        """Return level indices 0..n of the hard function, int32, of the shape of ``x``."""
        self._check_calibrated()
        return self.staircase(x).codes(x)

    def forward(self, x: Tensor) -> Tensor:
        """Quantize ``x`` (any shape to which the scales broadcast).

        Gradients, in evaluation too, are those of the training's function.

        Raises:
            RuntimeError: If it has not been calibrated.
        """
        if self.observer is not None:
            self.observer(x)
            return x
        if not self.is_active:
            return without_gradient(lambda: x, x, self.parameters()) if self.training else x
        self._check_calibrated()

        def hard() -> Tensor:
            return self.staircase(x).quantize(x)

        if self.training and self._mode is Mode.FIXED:
            return without_gradient(hard, None, [x, *self.parameters()])
        if self.training or (self.evaluate_soft and self._mode is not Mode.FIXED):
            return self.learn(x)
        if torch.is_grad_enabled() and x.requires_grad:  # class activation maps, attributions
            return without_gradient(hard, self.learn(x), [])
        return hard()

    def extra_repr(self) -> str:
        """Return number and range of levels, and shape of the scales, for ``print(model)``."""
        low, *_, high = self.config.levels if self.levels.is_meta else self.levels.tolist()
        return f'levels={len(self.levels)}: {low:g}..{high:g}, scale_shape={self.scale_shape}'

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert it; ``half()`` and ``bfloat16()`` leave scales and levels in float32.

        In 16 bits a scale is off by up to 0.4%, and one of a channel of zeros overflows.
        """

        def keep_precision(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            is_short = result.is_floating_point() and result.element_size() < 4
            return tensor.to(result.device) if is_short else result

        return super()._apply(keep_precision, recurse)

    def _check_calibrated(self) -> None:
        if not self._calibrated:
            raise RuntimeError(
                'a quantizer has not been calibrated: load a checkpoint of the quantized model, or '
                'train with `mmqnet.CalibrationHook` in `default_hooks`'
            )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a quantized checkpoint, or nothing from a float one.

        Raises:
            ValueError: If the checkpoint was made with other levels, another granularity or another
                method.
        """
        saved = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        if not saved:
            return  # a float checkpoint lacks no key: calibration fills the quantizer
        own = self.state_dict()
        mark = self.config.mark
        if mark and saved.keys() == own.keys() - {mark}:  # written before there were marks
            saved[mark] = state_dict[f'{prefix}{mark}'] = own[mark]
        check_saved_quantizer(saved, own, prefix, self.config)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self.refresh()


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    """Return all quantizers of a model by their module names, in the order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Quantizer)}


@contextlib.contextmanager
def soft_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluate with the training's functions within the block, for a comparison (figure 4)."""
    quantizers = list(quantizers_of(model).values())
    for quantizer in quantizers:
        quantizer.evaluate_soft = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.evaluate_soft = False
