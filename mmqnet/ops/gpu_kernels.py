# Copyright (c) mmqnet developers. All rights reserved.
"""The GPU code of :mod:`mmqnet.ops.gpu`, in Triton: each program computes a tile in one pass.

Everything that depends on the values of levels and thresholds is found here, by each tile anew: no
step waits for the GPU, and nothing is kept that could be out of date.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import triton
import triton.language as tl

# A threshold further than this (in units of 1 / T) adds less than 2e-8 of its gap.
_WINDOW = tl.constexpr(18.0)
# What no variant is compiled for. `inner` is not among them: loads are wider where 16 divides it.
_VARYING = ['n', 'half', 'rows', 'columns']


@triton.jit
def _place_of_program(rows, inner, columns, tile_rows: tl.constexpr, tile_columns: tl.constexpr):
    """Return this program's place in a row of tiles, and the rows, offsets and mask of its tile."""
    program = tl.program_id(0)
    place = program % columns
    row = (program // columns).to(tl.int64) * tile_rows + tl.arange(0, tile_rows)
    column = place.to(tl.int64) * tile_columns + tl.arange(0, tile_columns)
    offset = row[:, None] * inner + column[None, :]
    inside = (row < rows)[:, None] & (column < inner)[None, :]
    return place, row, offset, inside


@triton.jit
def _difference(x, beta, b):
    """Beta * x - b, rounded once: it stays exact however large beta * x is."""
    if _INTERPRETED:  # NumPy has no fused operation
        out = (x.to(tl.float64) * beta.to(tl.float64) - b.to(tl.float64)).to(tl.float32)
    else:
        out = tl.math.fma(x, beta, -b)
    return out


@triton.jit
def _add_sigmoid(difference, gap, temperature, value, slope):
    """Add a sigmoid to ``value`` and its slope to ``slope``."""
    u = difference * temperature
    # Not a minimum, in which a NaN would be lost.
    u = tl.where(u > 80.0, 80.0, u)
    u = tl.where(u < -80.0, -80.0, u)
    e = tl.exp(-u)
    g = 1.0 / (1.0 + e)
    weighted = gap * g
    return value + weighted, slope + weighted * (e * g)


@triton.jit
def _without_tiny(v):
    """Set to 0 what is left at the clamp of an exponent: it must stay so when x is huge."""
    return tl.where(tl.abs(v) < 1e-30, 0.0, v)


@triton.jit
def _count(thresholds, n, half, bound):
    """count(b_i <= bound) by bisection, 0 for NaN; ``half`` is the largest power of 2 up to n."""
    count = tl.zeros_like(bound).to(tl.int32)
    while half > 0:
        probe = count + half
        inside = probe <= n
        b = tl.load(thresholds + probe - 1, mask=inside, other=0.0)
        count = tl.where(inside & (b <= bound), probe, count)
        half = half // 2
    return count


@triton.jit
def _is_unit(levels, thresholds, n):
    """Whether b_i is b_0 + i without rounding, and the levels are at equal distances."""
    low = tl.load(thresholds)
    bottom = tl.load(levels)
    gap = tl.load(levels + 1) - bottom
    others = 0
    for start in range(0, n, 256):
        index = start + tl.arange(0, 256)
        inside = index < n
        b = tl.load(thresholds + index, mask=inside, other=0.0)
        y = tl.load(levels + index, mask=inside, other=0.0)
        above = tl.load(levels + index + 1, mask=inside, other=0.0)
        i = index.to(tl.float32)
        # A rounded sum is exact where each summand can be had back from it.
        unit = (b == low + i) & (b - i == low) & (b - low == i)
        equal = (y == bottom + i * gap) & (above - y == gap)
        others += tl.sum(tl.where(unit & equal, 0, 1) * inside.to(tl.int32), 0)
    return others == 0


@triton.jit
def _soft_unit(x, beta, levels, thresholds, n, temperature):
    """Return the sums of :func:`_soft` where nothing must be searched or looked up."""
    low = tl.load(thresholds)
    bottom = tl.load(levels)
    gap = tl.load(levels + 1) - bottom
    last = (n - 1).to(tl.float32)
    # The thresholds within reach, and always the nearest one on each side.
    reach = tl.maximum(_WINDOW / temperature, 1.0)
    first = x * beta - (low + (reach - 1.0))
    first = tl.where(first > 0.0, first, 0.0)  # also for NaN
    first = tl.where(first < last, first, last).to(tl.int32).to(tl.float32)
    value = first * gap + bottom
    slope = tl.zeros_like(value)
    for i in range(tl.minimum((2.0 * reach + 0.999).to(tl.int32), n)):
        index = first + i
        difference = _difference(x, beta, low + index)
        there = tl.where(index <= last, gap, 0.0)
        value, slope = _add_sigmoid(difference, there, temperature, value, slope)
    return value, slope


@triton.jit
def _soft_window(x, beta, levels, thresholds, n, half, temperature):
    """Return the sums of :func:`_soft` over thresholds near x and the nearest one on each side."""
    t = x * beta
    reach = _WINDOW / temperature + 1e-6 * tl.abs(t)  # t is rounded
    first = _count(thresholds, n, half, t - reach)
    end = _count(thresholds, n, half, t + reach)
    leftmost = tl.load(thresholds + first, mask=first < n, other=float('inf'))
    first = tl.where((leftmost <= t) | (first == 0), first, first - 1)
    rightmost = tl.load(thresholds + end - 1, mask=end > 0, other=float('-inf'))
    end = tl.where((rightmost > t) | (end == n), end, end + 1)
    lower = tl.load(levels + first)
    value = lower
    slope = tl.zeros_like(value)
    for i in range(tl.max(tl.max(end - first, 1), 0)):
        index = first + i
        inside = index < n
        b = tl.load(thresholds + index, mask=inside, other=0.0)
        upper = tl.load(levels + index + 1, mask=inside, other=0.0)
        gap = tl.where(inside, upper - lower, 0.0)
        value, slope = _add_sigmoid(_difference(x, beta, b), gap, temperature, value, slope)
        lower = upper
    return value, slope


@triton.jit
def _soft(x, beta, levels, thresholds, n, half, temperature):
    """Y_0 + sum_i s_i * g_i and sum_i s_i * g_i * (1 - g_i), each of the shape of x and beta."""
    if _is_unit(levels, thresholds, n):
        value, slope = _soft_unit(x, beta, levels, thresholds, n, temperature)
    else:
        value, slope = _soft_window(x, beta, levels, thresholds, n, half, temperature)
    return _without_tiny(value), _without_tiny(slope)


@triton.jit(do_not_specialize=_VARYING)
def soft_forward(
    x, y, levels, thresholds, n, half, temperature, alpha, beta, channels, rows, inner, columns,
    tile_rows: tl.constexpr, tile_columns: tl.constexpr,
):  # fmt: skip
    """``y``: the soft function of ``x``, at the temperature that lies in memory."""
    _, row, offset, inside = _place_of_program(rows, inner, columns, tile_rows, tile_columns)
    a = tl.load(alpha + row % channels, mask=row < rows, other=0.0)
    b = tl.load(beta + row % channels, mask=row < rows, other=0.0)
    b = tl.broadcast_to(b[:, None], (tile_rows, tile_columns))
    x_ = tl.load(x + offset, mask=inside, other=0.0)
    value, _ = _soft(x_, b, levels, thresholds, n, half, tl.load(temperature))
    tl.store(y + offset, a[:, None] * value, mask=inside)


@triton.jit(do_not_specialize=_VARYING)
def soft_backward(
    grad, x, grad_x, sums, levels, thresholds, n, half,
    temperature, surrogate_temperature, backward_temperature, exact: tl.constexpr,
    alpha, beta, channels, rows, inner, columns,
    tile_rows: tl.constexpr, tile_columns: tl.constexpr,
):  # fmt: skip
    """``grad_x``, and in ``sums`` (2, rows, columns) what each tile adds to alpha's and beta's.

    ``exact``: there is no backward temperature.
    """
    value_at = tl.minimum(tl.load(temperature), surrogate_temperature)
    slope_at = value_at if exact else backward_temperature
    place, row, offset, inside = _place_of_program(rows, inner, columns, tile_rows, tile_columns)
    a = tl.load(alpha + row % channels, mask=row < rows, other=0.0) * value_at
    b = tl.load(beta + row % channels, mask=row < rows, other=0.0)
    scale = (a * b)[:, None]
    b = tl.broadcast_to(b[:, None], (tile_rows, tile_columns))
    x_ = tl.load(x + offset, mask=inside, other=0.0)
    g = tl.load(grad + offset, mask=inside, other=0.0)
    value, slope = _soft(x_, b, levels, thresholds, n, half, slope_at)
    if not exact:
        value, _ = _soft(x_, b, levels, thresholds, n, half, value_at)
    slope = g * slope
    tl.store(grad_x + offset, slope * scale, mask=inside)
    sums += row * columns + place
    tl.store(sums, tl.sum(g * value, 1), mask=row < rows)
    tl.store(sums + rows.to(tl.int64) * columns, a * tl.sum(slope * x_, 1), mask=row < rows)


@triton.jit(do_not_specialize=_VARYING)
def hard_forward(
    x, y, levels, thresholds, n, half, alpha, beta, channels, rows, inner, columns,
    tile_rows: tl.constexpr, tile_columns: tl.constexpr,
):  # fmt: skip
    """``y``: the hard function of ``x``; ``t`` is beta * x, rounded."""
    _, row, offset, inside = _place_of_program(rows, inner, columns, tile_rows, tile_columns)
    a = tl.load(alpha + row % channels, mask=row < rows, other=0.0)
    b = tl.load(beta + row % channels, mask=row < rows, other=0.0)
    t = tl.load(x + offset, mask=inside, other=0.0) * b[:, None]
    out = a[:, None] * tl.load(levels + _count(thresholds, n, half, t))
    tl.store(y + offset, tl.where(t == t, out, t), mask=inside)


_INTERPRETED = tl.constexpr(not isinstance(_soft, triton.runtime.JITFunction))
