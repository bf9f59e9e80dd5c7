// Copyright (c) mmqnet developers. All rights reserved.
// Soft and hard quantization on the CPU in one pass over the tensor.

#include <Python.h>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <list>
#include <memory>
#include <mutex>
#include <numeric>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define MMQ_DISPATCH 1
#include <immintrin.h>
#endif

#include "plan.h"
#include "quantize.h"

#define MMQ_NAMESPACE baseline
#define MMQ_LANES 4
#include "kernel.h"

#ifdef MMQ_DISPATCH
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define MMQ_NAMESPACE avx2
#define MMQ_LANES 8
#include "kernel.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#define MMQ_NAMESPACE avx512
#define MMQ_LANES 16
#include "kernel.h"
#pragma GCC pop_options
#endif

#include "exact.h"
#include "fingerprint.h"

namespace mmqnet {
namespace {

struct Kernels {
  decltype(&baseline::soft_forward) soft_forward = baseline::soft_forward;
  decltype(&baseline::soft_backward) soft_backward = baseline::soft_backward;
  decltype(&baseline::fill_table) fill_table = baseline::fill_table;
  decltype(&baseline::hard_forward) hard_forward = baseline::hard_forward;
  const char* name = "baseline";
};

const Kernels& kernels() {
  static const Kernels chosen = [] {
    Kernels k;
#ifdef MMQ_DISPATCH
    const char* wish = std::getenv("MMQNET_CPU");  // for tests and comparisons: baseline, avx2 or avx512
    const auto allowed = [&](const char* name) { return !wish || std::string(wish) == name; };
    if (allowed("avx512") && __builtin_cpu_supports("avx512f")) {
      k = {avx512::soft_forward, avx512::soft_backward, avx512::fill_table, avx512::hard_forward, "avx512"};
    } else if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      k = {avx2::soft_forward, avx2::soft_backward, avx2::fill_table, avx2::hard_forward, "avx2"};
    }
#endif
    return k;
  }();
  return chosen;
}

constexpr int64_t kChunk = 1 << 14;

// The tensor's memory as rows of `inner` elements, row r with the scales of channel r % channels, cut into chunks.
struct Layout {
  int64_t rows, inner, channels, chunks_per_row;

  Layout(int64_t numel, int64_t channels_, int64_t inner_) : channels(channels_) {
    inner = channels == 1 ? numel : inner_;
    rows = inner ? numel / inner : 0;
    chunks_per_row = (inner + kChunk - 1) / kChunk;
  }
  int64_t chunks() const { return rows * chunks_per_row; }

  // body(chunk, channel, offset, size)
  template <typename Body>
  void parallel(const Body& body) const {
    const int64_t typical = std::max<int64_t>(1, std::min(inner, kChunk));
    at::parallel_for(0, chunks(), std::max<int64_t>(1, 2 * kChunk / typical), [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t row = chunk / chunks_per_row, start = (chunk % chunks_per_row) * kChunk;
        body(chunk, row % channels, row * inner + start, std::min(kChunk, inner - start));
      }
    });
  }

  // Sums of the chunks by channel, always in the same order.
  std::vector<double> by_channel(const std::vector<double>& partial) const {
    std::vector<double> sums(channels, 0.0);
    for (size_t chunk = 0; chunk < partial.size(); ++chunk) {
      sums[(static_cast<int64_t>(chunk) / chunks_per_row) % channels] += partial[chunk];
    }
    return sums;
  }
};

// Nanoseconds an element, forward and backward, measured on AVX-512 (and for a table those of a cell and of a node and
// threshold); only their proportions matter, which are about those of AVX2.
constexpr double kDenseCost = 0.9, kDenseThreshold = 0.6, kWindowCost = 1.4, kWindowThreshold = 2.4;
constexpr double kUnitCost = 1.3, kUnitThreshold = 0.72;
constexpr double kTableCost = 2.9, kTableCell = 1.0 / 15000, kNodeCost = 0.7;
// Tensors this small (elements times thresholds) are summed in double: with few terms, rounding shows in the sums.
constexpr int64_t kExactTerms = 8192;
// As many as a large model has quantizers; a table is 2 MiB or less.
constexpr size_t kKeptPlans = 64;

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
  consider(Strategy::kWindow, make_window, [](const SoftPlan& p) { return kWindowCost + kWindowThreshold * p.count; });
  consider(Strategy::kUnit, make_unit, [](const SoftPlan& p) { return kUnitCost + kUnitThreshold * p.count; });
  consider(Strategy::kTable, size_table, table_cost);
  return best;
}

SoftPlan finish(SoftPlan plan) {
  if (plan.strategy == Strategy::kWindow) pad_window(plan);
  if (plan.strategy == Strategy::kTable) {
    const int64_t cells = static_cast<int64_t>(plan.last_cell) + 1;
    plan.table.resize(8 * cells);
    at::parallel_for(0, cells, 512, [&](int64_t begin, int64_t end) { kernels().fill_table(plan, begin, end); });
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

// The plan of these arguments, kept for the backward pass and for the next steps: thresholds hardly ever change.
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

// (channels,): a scale as one number for each channel.
at::Tensor by_channel(const at::Tensor& scale, int64_t channels) {
  if (channels == 1) return scale;
  return scale.numel() == channels ? scale.contiguous() : scale.reshape(-1).expand(channels).contiguous();
}

int64_t count_channels(const at::Tensor& alpha, const at::Tensor& beta) {
  return std::max(alpha.numel(), beta.numel());
}

at::Tensor same_layout(const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.strides() == like.strides()) return tensor;
  return at::empty_like(like).copy_(tensor);
}

}  // namespace

at::Tensor soft_forward(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                        const at::Tensor& alpha_, const at::Tensor& beta_, int64_t inner, double temperature,
                        int64_t strategy) {
  const at::Tensor dense = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  at::Tensor y = at::empty_like(dense);
  if (!x.numel()) return y;
  const int64_t channels = count_channels(alpha_, beta_);
  const at::Tensor alpha = by_channel(alpha_, channels), beta = by_channel(beta_, channels);
  const Layout layout(x.numel(), channels, inner);
  if (x.scalar_type() == at::kDouble) {
    const ExactPlan plan(levels, thresholds, temperature);
    const double *in = dense.const_data_ptr<double>(), *a = alpha.const_data_ptr<double>(),
                 *b = beta.const_data_ptr<double>();
    double* out = y.mutable_data_ptr<double>();
    layout.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
      for (int64_t i = offset; i < offset + size; ++i) out[i] = a[c] * plan.value(in[i] * b[c]);
    });
    return y;
  }
  const auto plan = soft_plan(levels, thresholds, temperature, x.numel(), static_cast<Strategy>(strategy));
  const float *in = dense.const_data_ptr<float>(), *a = alpha.const_data_ptr<float>(),
              *b = beta.const_data_ptr<float>();
  float* out = y.mutable_data_ptr<float>();
  layout.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
    kernels().soft_forward(*plan, in + offset, out + offset, size, a[c], b[c]);
  });
  return y;
}

namespace {

template <typename scalar_t>
void exact_backward(const Layout& layout, const at::Tensor& grad, const at::Tensor& x, at::Tensor& grad_x,
                    const at::Tensor& levels, const at::Tensor& thresholds, const at::Tensor& alpha,
                    const at::Tensor& beta, double temperature, double backward_temperature,
                    std::vector<double>& by_value, std::vector<double>& by_slope, std::vector<double>& by_threshold) {
  const ExactPlan plan(levels, thresholds, temperature), slopes(levels, thresholds, backward_temperature);
  const scalar_t *g = grad.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>(),
                 *a = alpha.const_data_ptr<scalar_t>(), *b = beta.const_data_ptr<scalar_t>();
  scalar_t* out = grad_x.mutable_data_ptr<scalar_t>();
  const int64_t n = by_threshold.empty() ? 0 : plan.size();
  std::vector<double> terms(layout.chunks() * n, 0.0);
  layout.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
    double* mine = n ? terms.data() + chunk * n : nullptr;
    double value_sum = 0, slope_sum = 0;
    const double scale = static_cast<double>(a[c]) * temperature;
    for (int64_t i = offset; i < offset + size; ++i) {
      const double x_ = in[i], scaled = x_ * b[c], grad_ = g[i];
      value_sum += grad_ * plan.value(scaled);
      const double slope = grad_ * slopes.slope(scaled, grad_ * scale, mine);
      slope_sum += slope * x_;
      out[i] = static_cast<scalar_t>(slope * scale * b[c]);
    }
    by_value[chunk] = value_sum;
    by_slope[chunk] = slope_sum;
  });
  for (int64_t chunk = 0; n && chunk < layout.chunks(); ++chunk) {
    for (int64_t i = 0; i < n; ++i) by_threshold[i] -= terms[chunk * n + i];
  }
}

at::Tensor as_tensor(const std::vector<double>& values, const at::Tensor& like) {
  at::Tensor out = at::empty(like.sizes(), like.options());
  if (like.scalar_type() == at::kDouble) {
    std::copy(values.begin(), values.end(), out.mutable_data_ptr<double>());
  } else {
    std::copy(values.begin(), values.end(), out.mutable_data_ptr<float>());
  }
  return out;
}

// Gradients by channel as those of the scale, which may serve all channels.
at::Tensor as_scale(const std::vector<double>& by_channel, const at::Tensor& scale) {
  if (scale.numel() == static_cast<int64_t>(by_channel.size())) return as_tensor(by_channel, scale);
  return as_tensor({std::accumulate(by_channel.begin(), by_channel.end(), 0.0)}, scale);
}

double number_at(const at::Tensor& tensor, int64_t i) {
  return tensor.scalar_type() == at::kDouble ? tensor.const_data_ptr<double>()[i] : tensor.const_data_ptr<float>()[i];
}

}  // namespace

Gradients soft_backward(const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& levels,
                        const at::Tensor& thresholds, const at::Tensor& alpha_, const at::Tensor& beta_, int64_t inner,
                        double value_at, double slope_at, bool need_thresholds, int64_t strategy) {
  const at::Tensor x = x_.is_non_overlapping_and_dense() ? x_ : x_.contiguous();
  const at::Tensor grad = same_layout(grad_, x);
  at::Tensor grad_x = at::empty_like(x);
  const int64_t channels = count_channels(alpha_, beta_);
  const at::Tensor alpha = by_channel(alpha_, channels), beta = by_channel(beta_, channels);
  const Layout layout(x.numel(), channels, inner);
  std::vector<double> by_value(layout.chunks()), by_slope(layout.chunks());
  std::vector<double> by_threshold(need_thresholds ? thresholds.numel() : 0, 0.0);
  if (!x.numel()) {
  } else if (x.scalar_type() == at::kDouble) {
    exact_backward<double>(layout, grad, x, grad_x, levels, thresholds, alpha, beta, value_at,
                           slope_at, by_value, by_slope, by_threshold);
  } else if (need_thresholds || (strategy < 0 && x.numel() * thresholds.numel() <= kExactTerms)) {
    exact_backward<float>(layout, grad, x, grad_x, levels, thresholds, alpha, beta, value_at,
                          slope_at, by_value, by_slope, by_threshold);
  } else {
    const float *g = grad.const_data_ptr<float>(), *in = x.const_data_ptr<float>(),
                *a = alpha.const_data_ptr<float>(), *b = beta.const_data_ptr<float>();
    float* out = grad_x.mutable_data_ptr<float>();
    const bool same = value_at == slope_at;
    const auto wish = static_cast<Strategy>(strategy);
    const auto slopes = soft_plan(levels, thresholds, slope_at, x.numel(), wish);
    layout.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
      const float scale = static_cast<float>(static_cast<double>(a[c]) * b[c] * value_at);
      kernels().soft_backward(*slopes, g + offset, in + offset, out + offset, size, scale, b[c],
                              same ? &by_value[chunk] : nullptr, &by_slope[chunk]);
    });
    if (!same) {
      const auto values = soft_plan(levels, thresholds, value_at, x.numel(), wish);
      layout.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
        kernels().soft_backward(*values, g + offset, in + offset, nullptr, size, 0, b[c], &by_value[chunk], nullptr);
      });
    }
  }
  std::vector<double> slope_sums = layout.by_channel(by_slope);
  for (int64_t c = 0; c < layout.channels; ++c) slope_sums[c] *= value_at * number_at(alpha, c);
  return {grad_x, need_thresholds ? as_tensor(by_threshold, thresholds) : at::Tensor(),
          as_scale(layout.by_channel(by_value), alpha_), as_scale(slope_sums, beta_)};
}

namespace {

at::Tensor hard_quantize(const at::Tensor& x, const at::Tensor& levels_, const at::Tensor& thresholds_,
                         const at::Tensor& alpha_, const at::Tensor& beta_, int64_t inner) {
  const at::Tensor dense = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  at::Tensor y = at::empty_like(dense);
  if (!x.numel()) return y;
  const int64_t channels = count_channels(alpha_, beta_);
  const at::Tensor alpha = by_channel(alpha_, channels), beta = by_channel(beta_, channels);
  const Layout layout(x.numel(), channels, inner);
  const at::Tensor levels = levels_.contiguous(), thresholds = thresholds_.contiguous();
  const int64_t count = levels.numel();
  const float* y_ = levels.const_data_ptr<float>();
  const float *a = alpha.const_data_ptr<float>(), *b = beta.const_data_ptr<float>();
  std::vector<float> outputs(layout.channels * count);
  for (int64_t c = 0; c < layout.channels; ++c) {
    for (int64_t i = 0; i < count; ++i) outputs[c * count + i] = a[c] * y_[i];
  }
  const HardPlan plan = make_hard_plan(thresholds.const_data_ptr<float>(), thresholds.numel());
  const float* in = dense.const_data_ptr<float>();
  float* out = y.mutable_data_ptr<float>();
  layout.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
    kernels().hard_forward(plan, outputs.data() + c * count, in + offset, out + offset, size, b[c]);
  });
  return y;
}

at::Tensor soft_quantize(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                         const at::Tensor& alpha, const at::Tensor& beta, int64_t inner, double temperature, double,
                         double, int64_t strategy) {
  return soft_forward(x, levels, thresholds, alpha, beta, inner, temperature, strategy);
}

std::string instruction_set() { return kernels().name; }

}  // namespace
}  // namespace mmqnet

TORCH_LIBRARY(mmqnet, m) {
  m.def(
      "soft_quantize(Tensor x, Tensor levels, Tensor thresholds, Tensor alpha, Tensor beta, int inner, "
      "float temperature, float value_at, float slope_at, int strategy=-1) -> Tensor");
  m.def(
      "hard_quantize(Tensor x, Tensor levels, Tensor thresholds, Tensor alpha, Tensor beta, int inner) -> Tensor");
  m.def("fingerprint(Tensor[] tensors) -> Tensor");
  m.def("instruction_set() -> str", &mmqnet::instruction_set);
}

TORCH_LIBRARY_IMPL(mmqnet, CPU, m) {
  m.impl("soft_quantize", &mmqnet::soft_quantize);
  m.impl("hard_quantize", &mmqnet::hard_quantize);
  m.impl("fingerprint", &mmqnet::fingerprint);
}

// An empty module: importing it loads the library, which registers the operators.
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
