"""The quantization function of the paper with its learned scales."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmqnet.ops import soft_quantize
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.quantization_network.config import QuantizationNetworkConfig
from mmqnet.quantizers.quantization_network.thresholds import initial_thresholds
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.scales import fit_scales, initial_beta
from mmqnet.quantizers.staircase import Staircase, middles
from mmqnet.registry import QUANTIZERS


@QUANTIZERS.register_module()
class QuantizationNetwork(Quantizer):
    """A staircase that is soft in training (Quantization Networks, eq. 5 and 7).

    In training it is ``alpha * (Y_0 + sum_i s_i * sigmoid(T * (beta*x - b_i)))``, in evaluation
    the same with unit steps. Both scales are stored as logarithms: they stay positive whatever the
    optimizer does, and a step changes them by a ratio.

    Args:
        config: Levels, thresholds and the rest.
        scale_shape: Shape of alpha and beta, broadcastable to the input. Default ``()``.

    Attributes:
        thresholds (Tensor): (n,), in the scaled domain; buffer or parameter.
        log_alpha (nn.Parameter): Logarithm of the output scale.
        log_beta (nn.Parameter): Logarithm of the input scale.
        temperature (Tensor): 0-d buffer, T.
    """

    config_class: ClassVar[type[QuantizationNetworkConfig]] = QuantizationNetworkConfig

    config: QuantizationNetworkConfig
    temperature: Tensor

    def __init__(self, config: QuantizationNetworkConfig, scale_shape: Sequence[int] = ()) -> None:
        super().__init__(config, scale_shape)
        thresholds = middles(self.levels)
        if config.learn_thresholds:
            self.thresholds = nn.Parameter(thresholds)
        else:
            self.register_buffer('thresholds', thresholds)
        self.log_alpha = nn.Parameter(torch.zeros(self.scale_shape))
        self.log_beta = nn.Parameter(torch.zeros(self.scale_shape))
        self.register_buffer('temperature', torch.tensor(1.0))

    @property
    def alpha(self) -> Tensor:
        """Output scale, positive, of the shape ``scale_shape``."""
        return self.log_alpha.exp()

    @property
    def beta(self) -> Tensor:
        """Input scale, positive, of the shape ``scale_shape``."""
        return self.log_beta.exp()

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature T > 0 of the soft function.

        Raises:
            ValueError: If T is not positive and finite, or slopes would overflow.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f'`temperature` should be positive and finite, but got {temperature}')
        self.config.check_slope(temperature)
        self.temperature.fill_(temperature)

    def fit(self, sample: Sample) -> None:
        """Initialise thresholds and scales as the config says (section "Initialisation")."""
        config, levels = self.config, self.levels.tolist()
        beta = initial_beta(levels, sample.max_abs)
        method = config.thresholds_of(tuple(levels))
        scaled = (beta[:, None] * sample.values).flatten()
        thresholds = initial_thresholds(scaled, levels, method, config.paper_zero)
        alpha = 1 / beta
        if config.scale_init == 'mse':
            search_beta = config.thresholds != 'kmeans'
            alpha, beta = fit_scales(sample.values, levels, thresholds, beta, search_beta)
        self.thresholds.copy_(thresholds)
        self.log_alpha.copy_(alpha.log().view(self.scale_shape))
        self.log_beta.copy_(beta.log().view(self.scale_shape))

    def learn(self, x: Tensor) -> Tensor:
        """Return the soft function of ``x``, eq. 7."""
        config = self.config
        return soft_quantize(
            x,
            self.levels,
            self._ordered_thresholds(),
            self.alpha,
            self.beta,
            self.temperature,
            config.backward_temperature,
            config.surrogate_temperature,
        )

    def staircase(self, x: Tensor) -> Staircase:
        """Return the hard function, eq. 5, the same for every ``x``."""
        return Staircase(self.levels, self._ordered_thresholds(), self.alpha, self.beta)

    def scalars(self) -> dict[str, Tensor]:
        """Return alpha and beta; where there is one a channel, their geometric mean."""
        return dict(alpha=self.log_alpha.mean().exp(), beta=self.log_beta.mean().exp())

    def _ordered_thresholds(self) -> Tensor:
        """Return learned thresholds non-decreasing: one that overtakes the next replaces it."""
        if self.config.learn_thresholds:
            return self.thresholds.cummax(0).values
        return self.thresholds
