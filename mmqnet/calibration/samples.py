"""What calibration keeps of a layer's activations: their range and a bounded random sample."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmqnet.quantizers import Sample


@dataclass
class SampleCollector:
    """Observe tensors and keeps at most ``capacity`` of their values, each with equal chance.

    Args:
        name: Name of the layer, for error messages.
        capacity: How many values to keep. Default 2**18.
        seed: Of its own random generator, so that the training's random numbers stay untouched.

    Attributes:
        max_abs: The largest absolute value seen.
        minimum: The smallest value seen.
    """

    name: str
    capacity: int = 2**18
    seed: int = 0
    max_abs: float = 0.0
    minimum: float = float('inf')
    _seen: int = 0
    _values: Tensor = field(default_factory=lambda: torch.empty(0))
    _keys: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self, x: Tensor) -> None:
        """Take in one tensor of any shape.

        Raises:
            ValueError: If it holds NaN or infinite values.
        """
        if x.numel() == 0:
            return
        low, high = (v.item() for v in x.detach().float().aminmax())
        if not torch.isfinite(torch.tensor([low, high])).all():
            raise ValueError(
                f'the input of layer `{self.name}` holds NaN or infinite values '
                f'({low}..{high}) at calibration: check the float checkpoint and the data'
            )
        self.minimum = min(self.minimum, low)
        self.max_abs = max(self.max_abs, abs(low), abs(high))
        self._draw(x.detach().flatten())

    def values(self) -> Tensor:
        """Return the kept values, float32 on the CPU."""
        self._select()
        return self._values

    def sample(self, device: torch.device) -> Sample:
        """Return what a quantizer with one scale is fitted to."""
        values, max_abs = self.values().to(device), torch.tensor([self.max_abs], device=device)
        return Sample(values[None], max_abs, signed=self.minimum < 0)

    def merge(self, other: 'SampleCollector') -> None:
        """Take over what another process has seen of the same layer."""
        self.minimum = min(self.minimum, other.minimum)
        self.max_abs = max(self.max_abs, other.max_abs)
        self._keep(other._values, other._keys)
        self._seen += other._seen

    def _draw(self, flat: Tensor) -> None:
        """Reservoir by random keys: the values with the smallest keys of all stay.

        Only a part of a large tensor is drawn, so that a map of millions of values costs thousands.
        """
        generator = torch.Generator().manual_seed(self.seed + self._seen)
        total = len(flat)
        self._seen += total
        share = min(1.0, 4 * self.capacity / self._seen)
        count = max(1, min(total, int(share * total), self.capacity))
        if count < total:
            flat = flat[torch.randint(total, (count,), generator=generator).to(flat.device)]
        # the smallest `count` of `total` uniform keys look like `count` keys below count / total
        keys = torch.rand(count, generator=generator) * (count / total)
        self._keep(flat.float().cpu(), keys)

    def _keep(self, values: Tensor, keys: Tensor) -> None:
        self._values = torch.cat([self._values, values])
        self._keys = torch.cat([self._keys, keys])
        if (
            len(self._keys) > 2 * self.capacity
        ):  # not each time: selecting takes longer than drawing
            self._select()

    def _select(self) -> None:
        if len(self._keys) > self.capacity:
            self._keys, index = self._keys.topk(self.capacity, largest=False)
            self._values = self._values[index]
