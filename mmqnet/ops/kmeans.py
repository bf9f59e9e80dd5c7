# Copyright (c) mmqnet developers. All rights reserved.
"""1-D k-means on sorted values.

An iteration costs a few binary searches, whatever the number of values.
Clusters of sorted numbers are intervals, and the sum of an interval is a difference of two prefix
sums. There are no random numbers and no reductions whose order depends on threads, so every process
finds the same centres.
"""

import torch
from torch import Tensor

_BINS = 2048
# Lloyd's iterations stop when one gains less than this share of the inertia.
_TOLERANCE = 1e-6
_TRIAL_ITERATIONS = 30
_MAX_ITERATIONS = 300
# Moves of a centre to another place, each followed by a few iterations; one must gain this share of
# the inertia.
_MAX_MOVES = 64
_MIN_GAIN = 1e-5
# Boundaries that dynamic programming chooses from, and up to how many clusters it is worth its
# time.
_BOUNDARIES = 512
_MAX_PROGRAMMED = 64
# The best density of centres goes with the cube root of the density of the values (Panter and Dite,
# 1951); the other exponents are for data with few values or gaps, where that asymptotic law does
# not hold.
_EXPONENTS = (1 / 3, 0.6, 1.0, 0.0)


def kmeans_1d(values: Tensor, num_clusters: int) -> Tensor:
    """Cluster numbers into intervals of small squared distances to the interval's mean.

    Values with fewer distinct numbers than ``num_clusters`` keep each number as a centre; the other
    centres subdivide the widest gaps, so that there are always ``num_clusters`` of them.

    Args:
        values (Tensor): Numbers of any shape.
        num_clusters (int): k, at least 1.

    Returns:
        Tensor: (k,), the centres in increasing order, in the dtype of the values.

    Raises:
        TypeError: ``values`` is not a floating point tensor, or ``num_clusters`` not an int.
        ValueError: No values, values that are not finite, or all the same with more than one
            cluster.
    """
    _check(values, num_clusters)
    flat = values.detach().reshape(-1)
    data = _Sorted(flat if flat.dtype == torch.float64 else flat.float())
    distinct = data.distinct()
    if distinct is not None and len(distinct) < num_clusters:
        if len(distinct) == 1:
            raise ValueError(
                f'`values` should hold at least two different numbers for {num_clusters} clusters, '
                f'but all are {distinct[0].item():g}'
            )
        return _subdivide(distinct, num_clusters).to(values)
    return data.lloyd(data.improve(data.start(num_clusters)), _MAX_ITERATIONS).to(values)


def _check(values: Tensor, num_clusters: int) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f'`values` should be a floating point tensor, but got {got}')
    if not isinstance(num_clusters, int) or isinstance(num_clusters, bool):
        raise TypeError(f'`num_clusters` should be an int, but got {type(num_clusters).__name__}')
    if num_clusters < 1:
        raise ValueError(f'`num_clusters` should be at least 1, but got {num_clusters}')
    if not values.numel():
        raise ValueError('`values` should hold at least one number, but is empty')
    if not values.isfinite().all():
        raise ValueError('`values` should be finite, but holds NaN or infinity')


class _Sorted:
    """Sorted values with prefix sums; clusters are given by their centres."""

    def __init__(self, values: Tensor):
        # NumPy's sort, reached through the tensor, is several times faster than torch's, which also
        # tracks indices.
        array = values.cpu().clone().numpy()
        array.sort()
        self.values = torch.from_numpy(array)
        values64 = self.values.double()
        # Sums about the middle lose fewer digits to cancellation.
        self.offset = values64[len(values64) // 2].item()
        values64 = values64 - self.offset
        zero = values64.new_zeros(1)
        self.sums = torch.cat((zero, values64.cumsum(0)))
        self.squares = torch.cat((zero, values64.square_().cumsum(0)))

        changes = (self.values[1:] != self.values[:-1]).nonzero().squeeze(1) + 1
        # Where each distinct number begins, if they are few.
        self.begins = (
            torch.cat((changes.new_zeros(1), changes)) if len(changes) < _BOUNDARIES else None
        )

    def distinct(self) -> Tensor | None:
        """Return the distinct values in float64, or None if they are more than ``_BOUNDARIES``."""
        return None if self.begins is None else self.values[self.begins].double()

    def start(self, k: int) -> Tensor:
        """Good initial centres: (k,)."""
        if self.begins is not None:
            return self._program(self.begins, k)
        if k <= _MAX_PROGRAMMED:
            cuts = self._quantiles(_BOUNDARIES, _EXPONENTS[0]).to(self.values.dtype)
            begins = torch.searchsorted(self.values, cuts[1:])
            begins = torch.cat((begins.new_zeros(1), begins)).unique()
            begins = begins[begins < len(self.values)]
            if len(begins) > 2 * k:
                return self._program(begins, k)
        trials = (
            self.lloyd(self._quantiles(k, exponent), _TRIAL_ITERATIONS) for exponent in _EXPONENTS
        )
        return min(trials, key=self.inertia)

    def _quantiles(self, k: int, exponent: float) -> Tensor:
        """Numbers, k of them, that are spread as a power of the density of the values."""
        # Equal widths resolve the tails, equal counts the bulk of the values.
        low, high = self.values[0].double(), self.values[-1].double()
        widths = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64) * (high - low) + low
        counts = self.values[torch.linspace(0, len(self.values) - 1, _BINS).long()]
        edges = torch.cat((widths.to(counts.dtype), counts)).unique()
        bounds = torch.searchsorted(self.values, edges)
        bounds[-1] = len(self.values)
        edges = edges.double()
        weight = bounds.diff().double().pow(exponent) * edges.diff().pow(1 - exponent)
        share = torch.cat((weight.new_zeros(1), weight.cumsum(0)))
        share = share / share[-1]
        targets = (torch.arange(k, dtype=torch.float64) + 0.5) / k
        upper = torch.searchsorted(share, targets).clamp(1, len(edges) - 1)
        inside = (targets - share[upper - 1]) / (share[upper] - share[upper - 1]).clamp(min=1e-300)
        return edges[upper - 1] + inside * (edges[upper] - edges[upper - 1])

    def _program(self, begins: Tensor, k: int) -> Tensor:
        """Means of the best k intervals that begin at ``begins``, by dynamic programming."""
        ends = torch.cat((begins[1:], begins.new_full((1,), len(self.values))))
        # (to, from), both included: the minimum is over the last dimension, which lies together
        count = ends.double()[:, None] - begins.double()
        total = self.sums[ends][:, None] - self.sums[begins]
        error = self.squares[ends][:, None] - self.squares[begins]
        error.sub_(total.square_().div_(count)).clamp_(min=0)
        error.masked_fill_(count <= 0, float('inf'))
        best, choices = error[:, 0].contiguous(), []
        later, sums = error[:, 1:], total[:, 1:]  # new memory would take longer than all else
        for _ in range(k - 1):
            best, choice = torch.add(later, best[:-1], out=sums).min(1)
            choices.append(choice + 1)
        last, bounds = len(begins), [len(self.values)]
        for choice in reversed(choices):
            last = int(choice[last - 1])
            bounds.append(int(begins[last]))
        chosen = torch.tensor([0, *reversed(bounds)])
        return self._statistics(chosen)[1] + self.offset

    def _intervals(self, centres: Tensor) -> Tensor:
        """Positions where clusters begin and end: (k + 1,)."""
        middles = ((centres[1:] + centres[:-1]) / 2).to(self.values.dtype)
        bounds = torch.searchsorted(self.values, middles)
        return torch.cat((bounds.new_zeros(1), bounds, bounds.new_full((1,), len(self.values))))

    def _statistics(self, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return number of values, mean (about the offset) and squared error of each interval."""
        count = bounds.diff().double()
        total = self.sums[bounds].diff()
        mean = total / count.clamp(min=1)
        return count, mean, (self.squares[bounds].diff() - total * mean).clamp_(min=0)

    def inertia(self, centres: Tensor) -> float:
        """Sum of squared distances to the means of the clusters that the centres define."""
        return self._statistics(self._intervals(centres))[2].sum().item()

    def lloyd(self, centres: Tensor, iterations: int) -> Tensor:
        """Lloyd's iterations; a cluster that runs empty is put where it helps most."""
        previous = float('inf')
        for _ in range(iterations):
            bounds = self._intervals(centres)
            count, mean, error = self._statistics(bounds)
            inertia = error.sum().item()
            empty = count == 0
            if empty.any():
                centres = self._refill(mean[~empty] + self.offset, bounds, error)
                continue
            centres = mean + self.offset
            if previous - inertia <= _TOLERANCE * inertia:
                break
            previous = inertia
        return centres

    def _refill(self, centres: Tensor, bounds: Tensor, error: Tensor) -> Tensor:
        """Replace empty clusters by splitting those of the largest error in two."""
        missing = len(error) - len(centres)
        worst = error.argsort(descending=True, stable=True)[: min(missing, len(centres))]
        first = self.values[bounds[worst]].double()
        centres = torch.cat((centres, first)).sort().values
        if len(centres) < len(error):
            rest = len(error) - len(centres)
            centres = torch.cat((centres, centres[-1:].expand(rest)))
        return centres

    def improve(self, centres: Tensor) -> Tensor:
        """Move centres from where they help least to where they help most, while that pays."""
        if len(centres) < 3:
            return centres
        best = self.inertia(centres)
        for _ in range(_MAX_MOVES):
            candidate = self._move(centres)
            if candidate is None:
                break
            candidate = self.lloyd(candidate, _TRIAL_ITERATIONS)
            inertia = self.inertia(candidate)
            if inertia >= best * (1 - _MIN_GAIN):
                break
            centres, best = candidate, inertia
        return centres

    def _move(self, centres: Tensor) -> Tensor | None:
        """Merge the cheapest neighbours, split where it gains most; None if it does not pay."""
        bounds = self._intervals(centres)
        count, mean, error = self._statistics(bounds)
        # Splitting at the mean: the gain is known from prefix sums.
        cuts = torch.searchsorted(self.values, (mean + self.offset).to(self.values.dtype))
        halves = torch.stack(
            (bounds[:-1], torch.minimum(torch.maximum(cuts, bounds[:-1]), bounds[1:])), 1
        ).reshape(-1)
        halves = torch.cat((halves, bounds[-1:]))
        _, half_mean, half_error = self._statistics(halves)
        gain = error - half_error.view(-1, 2).sum(1)
        pairs = count[1:] * count[:-1] / (count[1:] + count[:-1]).clamp(min=1)
        cost = pairs * (mean[1:] - mean[:-1]).square()
        split = int(gain.argmax())
        # The cluster that is split cannot be one of the two that are merged.
        cost[max(split - 1, 0) : split + 1] = float('inf')
        merge = int(cost.argmin())
        if not gain[split] > cost[merge]:
            return None
        merged = (count[merge] * mean[merge] + count[merge + 1] * mean[merge + 1]) / (
            count[merge] + count[merge + 1]
        )
        keep = torch.ones(len(centres), dtype=torch.bool)
        keep[[split, merge, merge + 1]] = False
        new = torch.cat((mean[keep], half_mean.view(-1, 2)[split], merged.reshape(1)))
        return new.sort().values + self.offset


def _subdivide(distinct: Tensor, k: int) -> Tensor:
    """Distinct values plus points that cut the widest gaps into equal parts: (k,)."""
    gaps = distinct.diff()
    parts = torch.ones(len(gaps), dtype=torch.int64)
    for _ in range(k - len(distinct)):
        parts[int((gaps / parts).argmax())] += 1
    pieces = [
        low + gap * torch.arange(count, dtype=torch.float64) / count
        for low, gap, count in zip(distinct, gaps, parts.tolist(), strict=False)
    ]
    return torch.cat((*pieces, distinct[-1:]))
