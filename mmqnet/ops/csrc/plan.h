// Copyright (c) mmqnet developers. All rights reserved.
// What is computed once a call from levels, thresholds and temperature.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace mmqnet {

// A threshold further than this (in units of 1 / T) adds less than 2e-8 of its gap.
constexpr double kWindow = 18.0;
// The nearest thresholds take part up to here, so that a slope far from all of them keeps its relative precision.
constexpr double kNearest = 40.0;
constexpr int64_t kMaxCells = 4096;
constexpr int64_t kMaxTableCells = 1 << 16;
constexpr int64_t kMaxRowThresholds = 5;

// kPair is kUnit with two thresholds for an element, kRows is kWindow with few of them and equal gaps.
enum class Strategy : int64_t { kAuto = -1, kDense = 0, kWindow = 1, kTable = 2, kUnit = 3, kPair = 4, kRows = 5 };

// sum_i s_i * sigmoid(T * (t - b_i)) and its slope, prepared for the float kernels.
struct SoftPlan {
  Strategy strategy = Strategy::kDense, wish = Strategy::kAuto;
  float temperature = 1;
  int64_t n = 0, numel = 0;
  std::vector<float> levels, thresholds, gaps;  // padded by `count` for kWindow

  // kWindow: an equidistant grid of cells over the scaled domain gives the first threshold of each window.
  int64_t count = 0;  // thresholds evaluated for an element
  bool equal_gaps = false;
  float cell_low = 0, cells_per_unit = 0, last_cell = 0;
  std::vector<int32_t> first;

  // kUnit: a window where thresholds and levels are at equal distances, those of the thresholds 1: nothing is looked up.
  // `cell_low`, `last_cell` and `count` as above.

  // kTable: in each cell a quartic for D and, by its integral, a quintic for the value; h is a power of two and the
  // centres are multiples of h / 2, so that beta * x - centre is exact.
  float cell_width = 0, first_centre = 0;
  std::vector<float> table;  // (cells, 8): f, D0, ..., D4 in units of h; kRows: a level and the window's thresholds

  bool is_for(const float* y, const float* b, int64_t n_, float temperature_, int64_t numel_, Strategy wish_) const {
    return n == n_ && temperature == temperature_ && numel == numel_ && wish == wish_ &&
           std::equal(y, y + n + 1, levels.begin()) && std::equal(b, b + n, thresholds.begin());
  }
};

// kFew: compares with every threshold. kUnit: thresholds at distances of 1 need no search. kGrid: the same kind of grid
// as for SoftPlan.
enum class HardStrategy { kFew, kUnit, kGrid };
constexpr int64_t kFewThresholds = 8;

// count(b_i <= t).
struct HardPlan {
  HardStrategy strategy = HardStrategy::kGrid;
  int64_t n = 0, count = 0;
  float cell_low = 0, cells_per_unit = 0, last_cell = 0;
  std::vector<int32_t> first;
  std::vector<float> thresholds;  // padded by NaN, which no t reaches
};

inline int64_t grid_size(double range, double width) {
  const double cells = width > 0 ? std::ceil(range / width) : 1.0;
  return static_cast<int64_t>(std::min<double>(std::max(cells, 1.0), static_cast<double>(kMaxCells)));
}

// As for all integers: saves looking gaps and levels up.
inline bool has_equal_gaps(const SoftPlan& plan) {
  for (int64_t i = 0; i < plan.n; ++i) {
    if (plan.gaps[i] != plan.gaps[0] || plan.levels[i] != plan.levels[0] + i * plan.gaps[0]) return false;
  }
  return true;
}

inline bool make_window(SoftPlan& plan) {
  const auto& b = plan.thresholds;
  const int64_t n = plan.n;
  const double radius = kWindow / plan.temperature, nearest = kNearest / plan.temperature;
  const double low = b.front() - radius, high = b.back() + radius;
  const double width = std::min((static_cast<double>(b.back()) - b.front()) / (4.0 * n), radius / 2);
  const int64_t cells = grid_size(high - low, width);
  plan.cell_low = static_cast<float>(low);
  plan.cells_per_unit = static_cast<float>(cells / (high - low));
  plan.last_cell = static_cast<float>(cells - 1);
  if (!std::isfinite(plan.cells_per_unit)) return false;
  plan.first.resize(cells);
  // t is rounded before its cell is found, so a cell reaches a little further than its edges.
  const double slack = 1e-6 * (std::abs(low) + std::abs(high)) + 1e-3 * (high - low) / cells;
  int64_t begin = 0, end = 0, count = 1;
  for (int64_t c = 0; c < cells; ++c) {
    const double left = low + (high - low) * c / cells - slack;
    const double right = low + (high - low) * (c + 1) / cells + slack;
    while (begin < n && b[begin] < left - radius) ++begin;
    while (end < n && b[end] <= right + radius) ++end;
    int64_t from = begin, to = end;
    // The nearest threshold below and above the cell, unless it is out of reach.
    if (from > 0 && (from == n || b[from] > left) && b[from - 1] >= left - nearest) --from;
    if (to < n && (to == 0 || b[to - 1] < right) && b[to] <= right + nearest) ++to;
    if (from == n) from = n - 1;
    plan.first[c] = static_cast<int32_t>(from);
    count = std::max(count, to - from);
  }
  plan.count = count;
  plan.equal_gaps = has_equal_gaps(plan);
  return true;
}

// Whether b_i is b_0 + i, without rounding.
inline bool at_unit_distances(const float* b, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    if (b[i] != static_cast<double>(b[0]) + i) return false;
  }
  return true;
}

inline bool make_unit(SoftPlan& plan) {
  if (!has_equal_gaps(plan) || !at_unit_distances(plan.thresholds.data(), plan.n)) return false;
  // The thresholds within the radius, and always the nearest one on each side.
  const double radius = std::max(kWindow / plan.temperature, 1.0);
  plan.cell_low = static_cast<float>(plan.thresholds[0] + radius - 1.0);
  plan.last_cell = static_cast<float>(plan.n - 1);
  plan.count = static_cast<int64_t>(std::min<double>(std::ceil(2 * radius), plan.n));
  return true;
}

inline void pad_window(SoftPlan& plan) {
  plan.thresholds.resize(plan.n + plan.count, std::numeric_limits<float>::max());  // a sigmoid of 0
  plan.gaps.resize(plan.n + plan.count, 0.0f);
}

inline bool fits_rows(const SoftPlan& plan) { return plan.equal_gaps && plan.count <= kMaxRowThresholds; }

// Looking thresholds up one by one takes longer than all that is computed with them.
inline void fill_rows(SoftPlan& plan) {
  plan.strategy = Strategy::kRows;
  plan.table.resize(8 * plan.first.size());
  for (size_t c = 0; c < plan.first.size(); ++c) {
    float* row = plan.table.data() + 8 * c;
    row[0] = plan.levels[plan.first[c]];
    for (int64_t i = 0; i < plan.count; ++i) row[1 + i] = plan.thresholds[plan.first[c] + i];
  }
}

inline bool size_table(SoftPlan& plan) {
  const auto& b = plan.thresholds;
  const double reach = (kWindow + 2) / plan.temperature;
  const double h = std::exp2(std::floor(std::log2(1.0 / (3.0 * plan.temperature))));
  const double begin = std::floor((b.front() - reach) / h), end = std::ceil((b.back() + reach) / h);
  const double furthest = std::max(std::abs(begin), std::abs(end)) + 2;
  if (!(end - begin + 2 <= kMaxTableCells) || furthest > (1 << 22)) return false;
  plan.cell_width = static_cast<float>(h);
  plan.first_centre = static_cast<float>((begin - 0.5) * h);  // a constant cell before and one after
  plan.last_cell = static_cast<float>(end - begin + 1);
  return true;
}

inline HardPlan make_hard_plan(const float* b, int64_t n) {
  HardPlan plan;
  plan.n = n;
  plan.thresholds.assign(b, b + n);
  if (n <= kFewThresholds) {
    plan.strategy = HardStrategy::kFew;
    return plan;
  }
  if (at_unit_distances(b, n)) {
    plan.strategy = HardStrategy::kUnit;
    plan.last_cell = static_cast<float>(n - 1);
    return plan;
  }
  const double low = b[0], high = b[n - 1];
  int64_t cells = high > low ? grid_size(4.0 * n, 1.0) : 1;
  plan.cell_low = b[0];
  plan.cells_per_unit = cells > 1 ? static_cast<float>(cells / (high - low)) : 0.0f;
  if (!std::isfinite(plan.cells_per_unit)) {
    plan.cells_per_unit = 0.0f;
    cells = 1;
  }
  plan.last_cell = static_cast<float>(cells - 1);
  // The same float operations as in the kernel: they are monotone, so thresholds of earlier cells are at or below t.
  plan.first.assign(cells, 0);
  std::vector<int64_t> inside(cells, 0);
  for (int64_t i = 0; i < n; ++i) {
    float cell = (b[i] - plan.cell_low) * plan.cells_per_unit;
    cell = cell > 0.0f ? cell : 0.0f;
    cell = cell < plan.last_cell ? cell : plan.last_cell;
    ++inside[static_cast<int64_t>(cell)];
  }
  int64_t total = 0;
  for (int64_t c = 0; c < cells; ++c) {
    plan.first[c] = static_cast<int32_t>(total);
    total += inside[c];
    plan.count = std::max(plan.count, inside[c]);
  }
  plan.thresholds.resize(n + plan.count, std::numeric_limits<float>::quiet_NaN());
  return plan;
}

}  // namespace mmqnet
