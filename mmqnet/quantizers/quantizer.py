"""The quantizer: one quantization function with its learned scales and its state."""

import contextlib
import enum
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.ops import hard_codes, hard_quantize, soft_quantize
from mmqnet.quantizers import level_sets
from mmqnet.quantizers.checkpoints import check_granularity, check_levels
from mmqnet.quantizers.config import QuantizerConfig
from mmqnet.quantizers.gradient import without_gradient


class Mode(enum.IntEnum):
    """What a quantizer does in training; a phase of the training sets it."""

    FLOAT = 0  # lets its input pass, in evaluation too
    LEARNED = 1  # soft function in training, hard in evaluation
    FIXED = 2  # hard function without gradients in training, hard in evaluation


class Quantizer(nn.Module):
    """Quantization function of a layer's weights or of its input (eq. 5 and 7 of the paper).

    In training it is the soft function,
    ``alpha * (Y_0 + sum_i s_i * sigmoid(T * (beta*x - b_i)))``, in evaluation the hard one, with
    unit steps. Both scales are stored as logarithms: they stay positive whatever the optimizer
    does, and a step changes them by a ratio.

    Args:
        config: Levels, thresholds and the rest.
        scale_shape: Shape of alpha and beta, broadcastable to the input. Default ``()``.

    Attributes:
        levels (Tensor): (n + 1,), buffer.
        thresholds (Tensor): (n,), in the scaled domain; buffer or parameter.
        log_alpha (nn.Parameter): Logarithm of the output scale.
        log_beta (nn.Parameter): Logarithm of the input scale.
        temperature (Tensor): 0-d buffer.
        mode (Tensor): 0-d buffer, a :class:`Mode`.
        enabled (Tensor): 0-d buffer; False for a signed input that is left in float.
        calibrated (Tensor): 0-d buffer; whether thresholds and scales have been initialised.
        observer (Callable or None): While set, every input is handed to it and passes unchanged.
        evaluate_soft (bool): Whether evaluation uses the soft function, see
            :func:`soft_evaluation`.
    """

    levels: Tensor
    temperature: Tensor
    mode: Tensor
    enabled: Tensor
    calibrated: Tensor

    def __init__(self, config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.observer: Callable[[Tensor], None] | None = None
        self.evaluate_soft = False
        self.register_buffer('levels', torch.tensor(config.levels))
        thresholds = (self.levels[1:] + self.levels[:-1]) / 2
        if config.learn_thresholds:
            self.thresholds = nn.Parameter(thresholds)
        else:
            self.register_buffer('thresholds', thresholds)
        self.log_alpha = nn.Parameter(torch.zeros(tuple(scale_shape)))
        self.log_beta = nn.Parameter(torch.zeros(tuple(scale_shape)))
        self.register_buffer('temperature', torch.tensor(1.0))
        self.register_buffer('mode', torch.tensor(int(Mode.LEARNED)))
        self.register_buffer('enabled', torch.tensor(True))
        self.register_buffer('calibrated', torch.tensor(False))
        self._read_state()

    @property
    def alpha(self) -> Tensor:
        """Output scale, positive, of the shape ``scale_shape``."""
        return self.log_alpha.exp()

    @property
    def beta(self) -> Tensor:
        """Input scale, positive, of the shape ``scale_shape``."""
        return self.log_beta.exp()

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
        """Whether thresholds and scales have been initialised."""
        return self._calibrated

    @property
    def state(self) -> tuple[object, ...]:
        """What the result depends on beside the input and :meth:`learned_state`."""
        return self._mode, self._enabled, self._temperature, self.evaluate_soft

    def learned_state(self) -> tuple[Tensor, ...]:
        """The tensors that the result depends on: scales, thresholds and levels."""
        return self.log_alpha, self.log_beta, self.thresholds, self.levels

    def set_mode(self, mode: Mode) -> None:
        """Sets what it does in training."""
        self.mode.fill_(int(mode))
        self._mode = mode

    def set_temperature(self, temperature: float) -> None:
        """Sets the temperature T > 0 of the soft function.

        Raises:
            ValueError: If T is not positive and finite.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f'`temperature` should be positive and finite, but got {temperature}')
        self.temperature.fill_(temperature)
        self._temperature = float(temperature)

    @torch.no_grad()
    def initialize(self, signed: bool, alpha: Tensor, beta: Tensor, thresholds: Tensor) -> None:
        """Takes over what calibration found.

        Args:
            signed: Whether the input takes negative values, which selects the levels.
            alpha: Output scale, of the shape ``scale_shape`` or 0-d.
            beta: Input scale, likewise.
            thresholds: (n,), non-decreasing, in the scaled domain.
        """
        levels = self.config.levels_for(signed)
        self.levels.copy_(torch.tensor(levels or self.config.levels))
        self.enabled.fill_(levels is not None)
        self.thresholds.copy_(thresholds)
        self.log_beta.copy_(beta.log().expand_as(self.log_beta))
        self.log_alpha.copy_(alpha.log().expand_as(self.log_alpha))
        self.calibrated.fill_(True)
        self._read_state()

    def codes(self, x: Tensor) -> Tensor:
        """Level indices 0..n of the hard function, int32, of the shape of ``x``."""
        self._check_calibrated()
        self._order_thresholds()
        return hard_codes(x, self.thresholds, self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Quantizes ``x`` (any shape to which the scales broadcast).

        Raises:
            RuntimeError: If it has not been calibrated.
        """
        if self.observer is not None:
            self.observer(x)
            return x
        if not self.is_active:
            return without_gradient(lambda: x, x, self.parameters()) if self.training else x
        self._check_calibrated()
        self._order_thresholds()
        if self.training and self._mode is Mode.FIXED:
            return without_gradient(lambda: self._hard(x), None, [x, *self.parameters()])
        if self.training or self.evaluate_soft:
            return self._soft(x)
        return self._hard(x)

    def extra_repr(self) -> str:
        """Levels and shape of the scales, for ``print(model)``."""
        return f'levels={len(self.config.levels)}, scale_shape={tuple(self.log_alpha.shape)}'

    def _soft(self, x: Tensor) -> Tensor:
        config, temperature = self.config, self._temperature
        surrogate = config.surrogate_temperature
        if surrogate is not None and surrogate >= temperature:
            surrogate = None
        function = (self.levels, self.thresholds, self.alpha, self.beta)
        return soft_quantize(x, *function, temperature, config.backward_temperature, surrogate)

    def _hard(self, x: Tensor) -> Tensor:
        return hard_quantize(x, self.levels, self.thresholds, self.alpha, self.beta)

    def _order_thresholds(self) -> None:
        """Keeps learned thresholds non-decreasing: one that overtakes the next pushes it along."""
        if isinstance(self.thresholds, nn.Parameter):
            # Through `data`: a shared layer is called twice before the backward pass, which would
            # take the second, unchanged writing for a change of what the first call has saved.
            self.thresholds.data.copy_(self.thresholds.data.cummax(0).values)

    def _check_calibrated(self) -> None:
        if not self._calibrated:
            raise RuntimeError(
                'a quantizer has not been calibrated: load a checkpoint of the quantized model, or '
                'train with `mmqnet.CalibrationHook` in `default_hooks`'
            )

    def _read_state(self) -> None:
        """Keeps the state as Python values, so that a forward pass never waits for the device."""
        self._temperature = float(self.temperature)
        self._mode = Mode(int(self.mode))
        self._enabled = bool(self.enabled)
        self._calibrated = bool(self.calibrated)

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
        """Loads a quantized checkpoint, or nothing from a float one.

        Raises:
            ValueError: If the checkpoint was made with other levels or another granularity.
        """
        if not any(key.startswith(prefix) for key in state_dict):
            return  # a float checkpoint lacks no key: calibration fills the quantizer
        check_levels(state_dict, prefix, self.config)
        check_granularity(state_dict, prefix, self.log_alpha.shape)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._order_thresholds()
        self._read_state()


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    """All quantizers of a model by their module names, in the order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Quantizer)}


@contextlib.contextmanager
def soft_evaluation(model: nn.Module) -> Iterator[None]:
    """Within the block, evaluation uses the soft functions, for a comparison (figure 4)."""
    quantizers = list(quantizers_of(model).values())
    for quantizer in quantizers:
        quantizer.evaluate_soft = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.evaluate_soft = False
