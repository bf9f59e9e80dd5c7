// Copyright (c) mmqnet developers. All rights reserved.
#include "plans.h"

#include <ATen/Parallel.h>

#include <list>
#include <mutex>

#include "kernels.h"

namespace mmqnet {
namespace {

// Nanoseconds an element, forward and backward, measured on AVX-512 (and for a table those of a cell and of a node and
// threshold); only their proportions matter, which are about those of AVX2.
constexpr double kDenseCost = 0.9, kDenseThreshold = 0.6, kWindowCost = 1.4, kWindowThreshold = 2.4;
constexpr double kRowsCost = 2.6, kRowsThreshold = 0.95;
constexpr double kUnitCost = 1.3, kUnitThreshold = 0.72;
constexpr double kTableCost = 2.9, kTableCell = 1.0 / 15000, kNodeCost = 0.7;
// As many as a large model has quantizers; a table is 2 MiB or less.
constexpr size_t kKeptPlans = 64;

double window_cost(const SoftPlan& plan) {
  if (fits_rows(plan)) return kRowsCost + kRowsThreshold * plan.count;
  return kWindowCost + kWindowThreshold * plan.count;
}

double table_cost(const SoftPlan& plan) {
  const double cells = plan.last_cell + 1;
  const double reached = std::min(cells, 2 * (kWindow + 2) / plan.temperature / plan.cell_width);
  return kTableCost + kTableCell * cells + kNodeCost * 5 * reached * plan.n / plan.numel;
}

// The plan with the strategy that takes the least time, or with the one that is wished for if it can be.
SoftPlan cheapest(const SoftPlan& dense) {
  SoftPlan best = dense;
  double least = kDenseCost + kDenseThreshold * dense.n;
  const auto consider = [&](Strategy strategy, bool (*make)(SoftPlan&), const auto& cost_of) {
    const bool wished = dense.wish == strategy;
    if (!wished && (dense.wish != Strategy::kAuto || dense.n <= 2)) return;
    SoftPlan plan = dense;
    plan.strategy = strategy;
    if (!make(plan) || (!wished && cost_of(plan) >= least)) return;
    least = cost_of(plan);
    best = std::move(plan);
  };
  consider(Strategy::kWindow, make_window, window_cost);
  consider(Strategy::kUnit, make_unit, [](const SoftPlan& p) { return kUnitCost + kUnitThreshold * p.count; });
  consider(Strategy::kTable, size_table, table_cost);
  return best;
}

SoftPlan finish(SoftPlan plan) {
  if (plan.strategy == Strategy::kWindow) {
    pad_window(plan);
    if (fits_rows(plan)) fill_rows(plan);
  }
  if (plan.strategy == Strategy::kUnit && plan.count == 2) plan.strategy = Strategy::kPair;
  if (plan.strategy == Strategy::kTable) {
    const int64_t cells = static_cast<int64_t>(plan.last_cell) + 1;
    plan.table.resize(8 * cells);
    // Groups are the same with any number of threads, and so are their bits.
    const int64_t lanes = kernels().lanes;
    at::parallel_for(0, (cells + lanes - 1) / lanes, 512 / lanes, [&](int64_t begin, int64_t end) {
      kernels().fill_table(plan, begin * lanes, std::min(end * lanes, cells));
    });
  }
  return plan;
}

SoftPlan make_soft_plan(const float* y, const float* b, int64_t n, float temperature, int64_t numel, Strategy wish) {
  SoftPlan plan;
  plan.n = n;
  plan.temperature = temperature;
  plan.numel = numel;
  plan.wish = wish;
  plan.levels.assign(y, y + n + 1);
  plan.thresholds.assign(b, b + n);
  for (int64_t i = 0; i < n; ++i) plan.gaps.push_back(y[i + 1] - y[i]);
  return finish(cheapest(plan));
}

}  // namespace

std::shared_ptr<const SoftPlan> soft_plan(const at::Tensor& levels_, const at::Tensor& thresholds_,
                                          double temperature_, int64_t numel, Strategy wish) {
  static std::mutex mutex;
  static std::list<std::shared_ptr<const SoftPlan>> plans;  // the latest first
  const at::Tensor levels = levels_.contiguous(), thresholds = thresholds_.contiguous();
  const float *y = levels.const_data_ptr<float>(), *b = thresholds.const_data_ptr<float>();
  const float temperature = static_cast<float>(temperature_);
  const int64_t n = thresholds.numel();
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto at = plans.begin(); at != plans.end(); ++at) {
      if (!(*at)->is_for(y, b, n, temperature, numel, wish)) continue;
      plans.splice(plans.begin(), plans, at);
      return plans.front();
    }
  }
  auto plan = std::make_shared<const SoftPlan>(make_soft_plan(y, b, n, temperature, numel, wish));
  const std::lock_guard<std::mutex> lock(mutex);
  plans.push_front(plan);
  if (plans.size() > kKeptPlans) plans.pop_back();
  return plan;
}

}  // namespace mmqnet
