// Copyright (c) mmqnet developers. All rights reserved.
// The float kernels, included once for each instruction set: MMQ_NAMESPACE and MMQ_LANES are set by the includer.
// Written with GCC's vector extension, so one text serves all of them.

namespace mmqnet {
namespace MMQ_NAMESPACE {

constexpr int kLanes = MMQ_LANES;
typedef float vf __attribute__((vector_size(4 * MMQ_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * MMQ_LANES)));

#define MMQ_INLINE static inline __attribute__((always_inline))

MMQ_INLINE vf load(const float* p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

MMQ_INLINE void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof(v)); }

MMQ_INLINE vf all(float value) { return value - vf{}; }

// beta * x - b, rounded once: the difference stays exact however large beta * x is.
MMQ_INLINE vf difference(vf x, vf beta, vf b) {
#if MMQ_LANES == 16
  return (vf)_mm512_fmsub_ps((__m512)x, (__m512)beta, (__m512)b);
#elif MMQ_LANES == 8
  return (vf)_mm256_fmsub_ps((__m256)x, (__m256)beta, (__m256)b);
#else
  vf out;
  for (int j = 0; j < kLanes; ++j) out[j] = static_cast<float>(static_cast<double>(x[j]) * beta[j] - b[j]);
  return out;
#endif
}

MMQ_INLINE vf gather(const float* p, vi index) {
#if MMQ_LANES == 16
  return (vf)_mm512_i32gather_ps((__m512i)index, p, 4);
#elif MMQ_LANES == 8
  return (vf)_mm256_i32gather_ps(p, (__m256i)index, 4);
#else
  vf out;
  for (int j = 0; j < kLanes; ++j) out[j] = p[index[j]];
  return out;
#endif
}

MMQ_INLINE vi gather(const int32_t* p, vi index) {
  return (vi)gather(reinterpret_cast<const float*>(p), index);
}

MMQ_INLINE vi truncate(vf v) { return __builtin_convertvector(v, vi); }

// exp(-u) for |u| <= 80, within 2e-7 of its value; NaN stays NaN.
MMQ_INLINE vf exp_negative(vf u) {
  const vf shifted = u * -1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the integer ends in the low bits
  const vf k = shifted - 12582912.0f;
  vf r = -u - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  // Of the least relative error on |r| <= ln(2) / 2, 9e-8.
  vf p = r * 8.2903061503e-3f + 4.1897975375e-2f;
  p = p * r + 1.6667636582e-1f;
  p = p * r + 4.9999149193e-1f;
  p = p * r + 9.9999970701e-1f;
  p = p * r + 1.0f;
#if MMQ_LANES == 16
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)k);
#else
  const vi power = ((vi)shifted << 23) + 0x3f800000;
  return p * (vf)power;
#endif
}

// 1 / v for v >= 1.
MMQ_INLINE vf reciprocal(vf v) {
#if MMQ_LANES == 16
  // A division takes ten cycles; this estimate has 14 bits and a step of Newton's method doubles them.
  const vf estimate = (vf)_mm512_rcp14_ps((__m512)v);
  return estimate + estimate * (1.0f - v * estimate);
#else
  return 1.0f / v;
#endif
}

// The second operand of a minimum is the result where one is NaN.
MMQ_INLINE vf clamp_exponent(vf u) {
#if MMQ_LANES == 16
  return (vf)_mm512_max_ps((__m512)all(-80.0f), _mm512_min_ps((__m512)all(80.0f), (__m512)u));
#elif MMQ_LANES == 8
  return (vf)_mm256_max_ps((__m256)all(-80.0f), _mm256_min_ps((__m256)all(80.0f), (__m256)u));
#else
  u = u > 80.0f ? all(80.0f) : u;
  return u < -80.0f ? all(-80.0f) : u;
#endif
}

// What is left at the clamp of the exponent becomes 0: it must stay so when x is huge, and arithmetic with numbers
// below 1e-38 takes several times as long.
MMQ_INLINE vf without_tiny(vf v) { return v < 1e-30f ? (v > -1e-30f ? vf{} : v) : v; }

MMQ_INLINE vi find_cell(vf t, float low, float per_unit, float last) {
  vf cell = (t - low) * per_unit;
  cell = cell > 0.0f ? cell : vf{};  // also for NaN
  cell = cell < last ? cell : all(last);
  return truncate(cell);
}

struct Soft {
  vf value, slope;
};

MMQ_INLINE void add_sigmoid(vf u, vf gap, Soft& sum) {
  const vf e = exp_negative(clamp_exponent(u));
  const vf g = reciprocal(1.0f + e);
  const vf weighted = gap * g;
  sum.value += weighted;
  sum.slope += weighted * (e * g);
}

// Sums term(i, sum) for i in [begin, end) by groups: rounding errors grow with the group and the number of groups, not
// with the number of terms.
template <typename Term>
MMQ_INLINE void add_terms(int64_t begin, int64_t end, Soft& sum, const Term& term) {
  while (begin < end) {
    const int64_t stop = begin + 16 < end ? begin + 16 : end;
    Soft group{vf{}, vf{}};
    for (; begin < stop; ++begin) term(begin, group);
    sum.value += group.value;
    sum.slope += group.slope;
  }
}

MMQ_INLINE Soft soft_dense(const SoftPlan& plan, vf x, vf beta) {
  Soft sum{all(plan.levels[0]), vf{}};
  const float* b = plan.thresholds.data();
  const float* s = plan.gaps.data();
  add_terms(0, plan.n, sum, [&](int64_t i, Soft& group) __attribute__((always_inline)) {
    add_sigmoid(plan.temperature * difference(x, beta, all(b[i])), all(s[i]), group);
  });
  return sum;
}

MMQ_INLINE Soft soft_window(const SoftPlan& plan, vf x, vf beta) {
  const vi cell = find_cell(x * beta, plan.cell_low, plan.cells_per_unit, plan.last_cell);
  const vi first = gather(plan.first.data(), cell);
  const bool equal = plan.equal_gaps;
  Soft sum{vf{}, vf{}};
  if (equal) {
    sum.value = __builtin_convertvector(first, vf) * plan.gaps[0] + plan.levels[0];
  } else {
    sum.value = gather(plan.levels.data(), first);
  }
  const float* b = plan.thresholds.data();
  const float* s = plan.gaps.data();
  add_terms(0, plan.count, sum, [&](int64_t i, Soft& group) __attribute__((always_inline)) {
    add_sigmoid(plan.temperature * difference(x, beta, gather(b + i, first)),
                equal ? all(s[0]) : gather(s + i, first), group);
  });
  return sum;
}

// `pair`: two thresholds take part, as at every temperature from 18 on; their terms need no loop.
template <bool pair>
MMQ_INLINE Soft soft_unit(const SoftPlan& plan, vf x, vf beta) {
  const vf first = __builtin_convertvector(find_cell(x * beta, plan.cell_low, 1.0f, plan.last_cell), vf);
  const vf left = all(static_cast<float>(plan.n)) - first;  // thresholds from the first one on
  const float gap = plan.gaps[0];
  Soft sum{first * gap + plan.levels[0], vf{}};
  const auto term = [&](int64_t i, Soft& group) __attribute__((always_inline)) {
    const float step = static_cast<float>(i);
    add_sigmoid(plan.temperature * difference(x, beta, first + plan.thresholds[0] + step),
                step < left ? all(gap) : vf{}, group);
  };
  if (pair) {
    Soft both{vf{}, vf{}};
    term(0, both);
    term(1, both);
    return {sum.value + both.value, both.slope};
  }
  add_terms(0, plan.count, sum, term);
  return sum;
}

// The first six numbers of a row of eight for each lane: whole rows are loaded and transposed, since a gather takes as
// long as all of it.
#if MMQ_LANES >= 8
MMQ_INLINE void load_eight_rows(const float* table, const int32_t* row, __m256* columns) {
  __m256 left[4], right[4];
  for (int j = 0; j < 4; ++j) {
    const float *low = table + 8 * static_cast<int64_t>(row[j]), *high = table + 8 * static_cast<int64_t>(row[j + 4]);
    left[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
    right[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)), _mm_loadu_ps(high + 4), 1);
  }
  const __m256 a = _mm256_unpacklo_ps(left[0], left[1]), b = _mm256_unpacklo_ps(left[2], left[3]);
  const __m256 c = _mm256_unpackhi_ps(left[0], left[1]), d = _mm256_unpackhi_ps(left[2], left[3]);
  const __m256 e = _mm256_unpacklo_ps(right[0], right[1]), f = _mm256_unpacklo_ps(right[2], right[3]);
  columns[0] = _mm256_shuffle_ps(a, b, 0x44);
  columns[1] = _mm256_shuffle_ps(a, b, 0xee);
  columns[2] = _mm256_shuffle_ps(c, d, 0x44);
  columns[3] = _mm256_shuffle_ps(c, d, 0xee);
  columns[4] = _mm256_shuffle_ps(e, f, 0x44);
  columns[5] = _mm256_shuffle_ps(e, f, 0xee);
}
#endif

MMQ_INLINE void load_rows(const float* table, vi row, vf* columns) {
#if MMQ_LANES >= 8
  int32_t rows[kLanes];
  __builtin_memcpy(rows, &row, sizeof(rows));
  __m256 parts[kLanes / 8][6];
  for (int part = 0; part < kLanes / 8; ++part) load_eight_rows(table, rows + 8 * part, parts[part]);
  for (int k = 0; k < 6; ++k) {
#if MMQ_LANES == 16
    columns[k] = (vf)_mm512_castpd_ps(_mm512_insertf64x4(
        _mm512_castps_pd(_mm512_castps256_ps512(parts[0][k])), _mm256_castps_pd(parts[1][k]), 1));
#else
    columns[k] = (vf)parts[0][k];
#endif
  }
#else
  for (int k = 0; k < 6; ++k) columns[k] = gather(table + k, row * 8);
#endif
}

MMQ_INLINE Soft soft_table(const SoftPlan& plan, vf x, vf beta) {
  const float h = plan.cell_width, per_unit = 1.0f / h;
  const vi cell = find_cell(x * beta, plan.first_centre - 0.5f * h, per_unit, plan.last_cell);
  const vf centre = __builtin_convertvector(cell, vf) * h + plan.first_centre;
  vf z = difference(x, beta, centre) * per_unit;
  z = z > 1.0f ? all(1.0f) : z;
  z = z < -1.0f ? all(-1.0f) : z;
  vf row[6];  // f, D0, ..., D4
  load_rows(plan.table.data(), cell, row);
  Soft sum;
  sum.slope = (((row[5] * z + row[4]) * z + row[3]) * z + row[2]) * z + row[1];
  vf integral = (row[5] * 0.2f * z + row[4] * 0.25f) * z + row[3] * (1.0f / 3);
  integral = ((integral * z + row[2] * 0.5f) * z + row[1]) * z;
  sum.value = integral * (plan.temperature * h) + row[0];
  return sum;
}

// A window of few thresholds, which lie in the row of their cell.
MMQ_INLINE Soft soft_rows(const SoftPlan& plan, vf x, vf beta) {
  vf row[6];  // the level below the window, then thresholds
  load_rows(plan.table.data(), find_cell(x * beta, plan.cell_low, plan.cells_per_unit, plan.last_cell), row);
  const vf gap = all(plan.gaps[0]);
  Soft group{vf{}, vf{}};
#pragma GCC unroll 5
  for (int64_t i = 0; i < kMaxRowThresholds; ++i) {
    if (i < plan.count) add_sigmoid(plan.temperature * difference(x, beta, row[1 + i]), gap, group);
  }
  return {row[0] + group.value, group.slope};
}

template <Strategy strategy>
MMQ_INLINE Soft soft(const SoftPlan& plan, vf x, vf beta) {
  if (strategy == Strategy::kDense) return soft_dense(plan, x, beta);
  if (strategy == Strategy::kWindow) return soft_window(plan, x, beta);
  if (strategy == Strategy::kUnit) return soft_unit<false>(plan, x, beta);
  if (strategy == Strategy::kPair) return soft_unit<true>(plan, x, beta);
  if (strategy == Strategy::kRows) return soft_rows(plan, x, beta);
  return soft_table(plan, x, beta);
}

template <typename Body>
MMQ_INLINE void for_each_vector(int64_t size, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) body(i, kLanes);
  if (i < size) body(i, static_cast<int>(size - i));
}

MMQ_INLINE vf load_some(const float* p, int lanes) {
  if (__builtin_expect(lanes == kLanes, 1)) return load(p);
  vf v{};
  for (int j = 0; j < lanes; ++j) v[j] = p[j];
  return v;
}

MMQ_INLINE void store_some(float* p, vf v, int lanes) {
  if (__builtin_expect(lanes == kLanes, 1)) return store(p, v);
  for (int j = 0; j < lanes; ++j) p[j] = v[j];
}

template <Strategy strategy>
MMQ_INLINE void forward_loop(const SoftPlan& plan, const float* x, float* y, int64_t size, float alpha, float beta) {
  for_each_vector(size, [&](int64_t i, int lanes) __attribute__((always_inline)) {
    const Soft sum = soft<strategy>(plan, load_some(x + i, lanes), all(beta));
    store_some(y + i, alpha * without_tiny(sum.value), lanes);
  });
}

// Sums of products in double, lane by lane and in a fixed order. No member is initialised here: an implicit constructor
// would not be compiled for the instruction set.
struct Sum {
#if MMQ_LANES == 16
  __m512d low, high;
#elif MMQ_LANES == 8
  __m256d low, high;
#else
  double low[kLanes];
#endif
};

MMQ_INLINE Sum no_sum() {
  Sum sum;
  __builtin_memset(&sum, 0, sizeof(sum));
  return sum;
}

MMQ_INLINE void add_lanes(Sum& sum, vf v) {
#if MMQ_LANES == 16
  const __m512d parts = _mm512_castps_pd((__m512)v);
  sum.low += _mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v));
  sum.high += _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(parts, 1)));
#elif MMQ_LANES == 8
  sum.low += _mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v));
  sum.high += _mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1));
#else
  for (int j = 0; j < kLanes; ++j) sum.low[j] += v[j];
#endif
}

MMQ_INLINE double total(const Sum& sum) {
  double lanes[kLanes], all = 0;
  __builtin_memcpy(lanes, &sum, sizeof(lanes));
  for (double lane : lanes) all += lane;
  return all;
}

template <Strategy strategy, bool need_value, bool need_slope>
MMQ_INLINE void backward_loop(const SoftPlan& plan, const float* grad, const float* x, float* grad_x, int64_t size,
                              float scale, float beta, double* by_value, double* by_slope) {
  Sum value_sum = no_sum(), slope_sum = no_sum();
  for_each_vector(size, [&](int64_t i, int lanes) __attribute__((always_inline)) {
    const vf x_ = load_some(x + i, lanes), grad_ = load_some(grad + i, lanes);
    const Soft sum = soft<strategy>(plan, x_, all(beta));
    if (need_value) add_lanes(value_sum, grad_ * without_tiny(sum.value));
    if (need_slope) {
      const vf product = grad_ * without_tiny(sum.slope);
      store_some(grad_x + i, product * scale, lanes);
      add_lanes(slope_sum, product * x_);
    }
  });
  if (need_value) *by_value = total(value_sum);
  if (need_slope) *by_slope = total(slope_sum);
}

void soft_forward(const SoftPlan& plan, const float* x, float* y, int64_t size, float alpha, float beta) {
  switch (plan.strategy) {
    case Strategy::kWindow:
      return forward_loop<Strategy::kWindow>(plan, x, y, size, alpha, beta);
    case Strategy::kUnit:
      return forward_loop<Strategy::kUnit>(plan, x, y, size, alpha, beta);
    case Strategy::kPair:
      return forward_loop<Strategy::kPair>(plan, x, y, size, alpha, beta);
    case Strategy::kRows:
      return forward_loop<Strategy::kRows>(plan, x, y, size, alpha, beta);
    case Strategy::kTable:
      return forward_loop<Strategy::kTable>(plan, x, y, size, alpha, beta);
    default:
      return forward_loop<Strategy::kDense>(plan, x, y, size, alpha, beta);
  }
}

template <Strategy strategy>
MMQ_INLINE void backward_parts(const SoftPlan& plan, const float* grad, const float* x, float* grad_x, int64_t size,
                               float scale, float beta, double* by_value, double* by_slope) {
  if (by_value && by_slope) {
    backward_loop<strategy, true, true>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
  } else if (by_value) {
    backward_loop<strategy, true, false>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
  } else {
    backward_loop<strategy, false, true>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
  }
}

// grad_x = scale * grad * D; by_value = sum(grad * f), by_slope = sum(grad * x * D), each unless null.
void soft_backward(const SoftPlan& plan, const float* grad, const float* x, float* grad_x, int64_t size, float scale,
                   float beta, double* by_value, double* by_slope) {
  switch (plan.strategy) {
    case Strategy::kWindow:
      return backward_parts<Strategy::kWindow>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
    case Strategy::kUnit:
      return backward_parts<Strategy::kUnit>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
    case Strategy::kPair:
      return backward_parts<Strategy::kPair>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
    case Strategy::kRows:
      return backward_parts<Strategy::kRows>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
    case Strategy::kTable:
      return backward_parts<Strategy::kTable>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
    default:
      return backward_parts<Strategy::kDense>(plan, grad, x, grad_x, size, scale, beta, by_value, by_slope);
  }
}

// D as a quartic and, at the centres, f for cells [begin, end) of the table.
void fill_table(SoftPlan& plan, int64_t begin, int64_t end) {
  // Chebyshev nodes on [-1/2, 1/2], besides 0.
  const float nodes[4] = {-0.47552826f, -0.29389263f, 0.29389263f, 0.47552826f};
  const float inner = nodes[2] * nodes[2], outer = nodes[3] * nodes[3];
  const double h = plan.cell_width, reach = (kWindow + 2) / plan.temperature;
  const int64_t last = static_cast<int64_t>(plan.last_cell);
  const float* b = plan.thresholds.data();
  int64_t from = 0, to = 0;
  for (int64_t c = begin; c < end; c += kLanes) {
    const double low = plan.first_centre + (c - 0.5) * h - reach, high = low + kLanes * h + 2 * reach;
    while (from < plan.n && b[from] < low) ++from;
    while (to < plan.n && b[to] <= high) ++to;
    vf centre;
    for (int j = 0; j < kLanes; ++j) centre[j] = static_cast<float>(c + j) * plan.cell_width + plan.first_centre;
    const auto sum_at = [&](float node, Soft sum) __attribute__((always_inline)) {
      add_terms(from, to, sum, [&](int64_t i, Soft& group) __attribute__((always_inline)) {
        add_sigmoid((centre - b[i] + node * plan.cell_width) * plan.temperature, all(plan.gaps[i]), group);
      });
      return sum;
    };
    const Soft middle = sum_at(0.0f, Soft{all(plan.levels[from]), vf{}});
    vf slope[4];
    for (int k = 0; k < 4; ++k) slope[k] = sum_at(nodes[k], Soft{vf{}, vf{}}).slope;
    const vf d0 = middle.slope;
    const vf even_inner = (0.5f * (slope[2] + slope[1]) - d0) / inner;
    const vf even_outer = (0.5f * (slope[3] + slope[0]) - d0) / outer;
    const vf odd_inner = (slope[2] - slope[1]) * (0.5f / nodes[2]);
    const vf odd_outer = (slope[3] - slope[0]) * (0.5f / nodes[3]);
    const vf d4 = (even_outer - even_inner) / (outer - inner), d2 = even_inner - d4 * inner;
    const vf d3 = (odd_outer - odd_inner) / (outer - inner), d1 = odd_inner - d3 * inner;
    for (int j = 0; j < kLanes && c + j < end; ++j) {
      float* row = plan.table.data() + 8 * (c + j);
      const bool before = c + j == 0, after = c + j == last;
      const float values[6] = {middle.value[j], d0[j], d1[j], d2[j], d3[j], d4[j]};
      for (int k = 0; k < 6; ++k) row[k] = before || after ? 0.0f : values[k];
      if (before) row[0] = plan.levels[0];
      if (after) row[0] = plan.levels[plan.n];
    }
  }
}

// The index of the level: count(b_i <= t).
template <HardStrategy strategy>
MMQ_INLINE vi hard_index(const HardPlan& plan, vf t) {
  const float* b = plan.thresholds.data();
  if (strategy == HardStrategy::kUnit) {
    // Rounding is monotone, so t - b_0 is at least i where t is at least b_i; where it is rounded up, the comparison
    // tells.
    const vi below = find_cell(t, b[0], 1.0f, plan.last_cell);
    return below - (vi)(t >= __builtin_convertvector(below, vf) + b[0]);
  }
  const vi first = gather(plan.first.data(), find_cell(t, plan.cell_low, plan.cells_per_unit, plan.last_cell));
  vi index = first;
  for (int64_t k = 0; k < plan.count; ++k) index -= (vi)(t >= gather(b + k, first));
  return index;
}

template <HardStrategy strategy>
MMQ_INLINE vf hard_output(const HardPlan& plan, const float* outputs, vf t) {
  if (strategy != HardStrategy::kFew) return gather(outputs, hard_index<strategy>(plan, t));
  vf out = all(outputs[0]);
  for (int64_t i = 0; i < plan.n; ++i) out = t >= plan.thresholds[i] ? all(outputs[i + 1]) : out;
  return out;
}

template <HardStrategy strategy>
MMQ_INLINE void hard_loop(const HardPlan& plan, const float* outputs, const float* x, float* y, int64_t size,
                          float beta) {
  for_each_vector(size, [&](int64_t i, int lanes) __attribute__((always_inline)) {
    const vf t = load_some(x + i, lanes) * beta;
    store_some(y + i, t != t ? t : hard_output<strategy>(plan, outputs, t), lanes);
  });
}

void hard_forward(const HardPlan& plan, const float* outputs, const float* x, float* y, int64_t size, float beta) {
  switch (plan.strategy) {
    case HardStrategy::kFew:
      return hard_loop<HardStrategy::kFew>(plan, outputs, x, y, size, beta);
    case HardStrategy::kUnit:
      return hard_loop<HardStrategy::kUnit>(plan, outputs, x, y, size, beta);
    default:
      return hard_loop<HardStrategy::kGrid>(plan, outputs, x, y, size, beta);
  }
}

// grad_x = grad where x is within [low, high], else 0. by_log_alpha = sum(grad * (y - x)) there plus
// sum(grad * y) elsewhere, where grad also sums up to `clipped`.
void straight_through_backward(const float* grad, const float* x, const float* y, float* grad_x, int64_t size,
                               float low, float high, double* by_log_alpha, double* clipped) {
  Sum scale_sum = no_sum(), clipped_sum = no_sum();
  for_each_vector(size, [&](int64_t i, int lanes) __attribute__((always_inline)) {
    const vf x_ = load_some(x + i, lanes), grad_ = load_some(grad + i, lanes);
    const vi outside = (x_ < low) | (x_ > high);
    store_some(grad_x + i, outside ? vf{} : grad_, lanes);
    add_lanes(scale_sum, grad_ * (load_some(y + i, lanes) - (outside ? vf{} : x_)));
    add_lanes(clipped_sum, outside ? grad_ : vf{});
  });
  *by_log_alpha = total(scale_sum);
  *clipped = total(clipped_sum);
}

#undef MMQ_INLINE

}  // namespace MMQ_NAMESPACE
}  // namespace mmqnet

#undef MMQ_NAMESPACE
#undef MMQ_LANES
