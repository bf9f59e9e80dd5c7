// Copyright (c) mmqnet developers. All rights reserved.
// The operators on the CPU, in one pass over the tensor.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "arguments.h"
#include "exact.h"
#include "kernels.h"
#include "plans.h"
#include "rows.h"

namespace mmqnet {
namespace {

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;  // of x, thresholds, alpha and beta

// Tensors this small (elements times thresholds) are summed in double: with few terms, rounding shows in the sums.
constexpr int64_t kExactTerms = 8192;

template <typename scalar_t>
void exact_forward(const Rows& rows, const at::Tensor& x, at::Tensor& y, const ExactPlan& plan,
                   const at::Tensor& alpha, const at::Tensor& beta) {
  const scalar_t *in = x.const_data_ptr<scalar_t>(), *a = alpha.const_data_ptr<scalar_t>(),
                 *b = beta.const_data_ptr<scalar_t>();
  scalar_t* out = y.mutable_data_ptr<scalar_t>();
  rows.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
    for (int64_t i = offset; i < offset + size; ++i) out[i] = a[c] * plan.value(in[i] * b[c]);
  });
}

at::Tensor soft_forward(const at::Tensor& x_, const at::Tensor& levels, const at::Tensor& thresholds,
                        const at::Tensor& alpha_, const at::Tensor& beta_, double temperature, Strategy strategy) {
  if (!x_.numel()) return at::empty_like(x_);
  const Rows rows(x_, alpha_, beta_);
  const at::Tensor x = rows.arrange(x_), alpha = rows.by_channel(alpha_), beta = rows.by_channel(beta_);
  at::Tensor y = at::empty_like(x);
  if (x.scalar_type() == at::kDouble) {
    exact_forward<double>(rows, x, y, ExactPlan(levels, thresholds, temperature), alpha, beta);
  } else {
    const auto plan = soft_plan(levels, thresholds, temperature, x.numel(), strategy);
    const float *in = x.const_data_ptr<float>(), *a = alpha.const_data_ptr<float>(), *b = beta.const_data_ptr<float>();
    float* out = y.mutable_data_ptr<float>();
    rows.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
      kernels().soft_forward(*plan, in + offset, out + offset, size, a[c], b[c]);
    });
  }
  return as_like(y, x, x_);
}

template <typename scalar_t>
void exact_backward(const Rows& rows, const at::Tensor& grad, const at::Tensor& x, at::Tensor& grad_x,
                    const at::Tensor& levels, const at::Tensor& thresholds, const at::Tensor& alpha,
                    const at::Tensor& beta, double temperature, double backward_temperature,
                    std::vector<double>& by_value, std::vector<double>& by_slope, std::vector<double>& by_threshold) {
  const ExactPlan plan(levels, thresholds, temperature), slopes(levels, thresholds, backward_temperature);
  const scalar_t *g = grad.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>(),
                 *a = alpha.const_data_ptr<scalar_t>(), *b = beta.const_data_ptr<scalar_t>();
  scalar_t* out = grad_x.mutable_data_ptr<scalar_t>();
  const int64_t n = by_threshold.empty() ? 0 : plan.size();
  std::vector<double> terms(rows.chunks() * n, 0.0);
  rows.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
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
  for (int64_t chunk = 0; n && chunk < rows.chunks(); ++chunk) {
    for (int64_t i = 0; i < n; ++i) by_threshold[i] -= terms[chunk * n + i];
  }
}

double number_at(const at::Tensor& tensor, int64_t i) {
  return tensor.scalar_type() == at::kDouble ? tensor.const_data_ptr<double>()[i] : tensor.const_data_ptr<float>()[i];
}

// As exact_backward, without gradients of thresholds, in float32 and by the plan of the fastest way.
void quick_backward(const Rows& rows, const at::Tensor& grad, const at::Tensor& x, at::Tensor& grad_x,
                    const at::Tensor& levels, const at::Tensor& thresholds, const at::Tensor& alpha,
                    const at::Tensor& beta, BackwardTemperatures at, Strategy strategy, std::vector<double>& by_value,
                    std::vector<double>& by_slope) {
  const float *g = grad.const_data_ptr<float>(), *in = x.const_data_ptr<float>(), *a = alpha.const_data_ptr<float>(),
              *b = beta.const_data_ptr<float>();
  float* out = grad_x.mutable_data_ptr<float>();
  const bool same = at.value_at == at.slope_at;
  const auto slopes = soft_plan(levels, thresholds, at.slope_at, x.numel(), strategy);
  rows.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
    const float scale = static_cast<float>(static_cast<double>(a[c]) * b[c] * at.value_at);
    kernels().soft_backward(*slopes, g + offset, in + offset, out + offset, size, scale, b[c],
                            same ? &by_value[chunk] : nullptr, &by_slope[chunk]);
  });
  if (same) return;
  const auto values = soft_plan(levels, thresholds, at.value_at, x.numel(), strategy);
  rows.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
    kernels().soft_backward(*values, g + offset, in + offset, nullptr, size, 0, b[c], &by_value[chunk], nullptr);
  });
}

// `grad` times the derivatives of the function at `value_at`, with the slope at `slope_at` times `value_at`.
Gradients soft_backward(const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& levels,
                        const at::Tensor& thresholds, const at::Tensor& alpha_, const at::Tensor& beta_,
                        BackwardTemperatures at, bool need_thresholds, Strategy strategy) {
  const int64_t n = thresholds.numel();
  std::vector<double> by_threshold(need_thresholds ? n : 0, 0.0);
  const auto threshold_options = thresholds.options();
  if (!x_.numel()) {
    return {at::empty_like(x_), at::zeros({need_thresholds ? n : 0}, threshold_options),
            at::zeros(alpha_.sizes(), alpha_.options()), at::zeros(beta_.sizes(), beta_.options())};
  }
  const Rows rows(x_, alpha_, beta_);
  const at::Tensor x = rows.arrange(x_), alpha = rows.by_channel(alpha_), beta = rows.by_channel(beta_);
  const at::Tensor grad = with_strides_of(grad_, x);
  at::Tensor grad_x = at::empty_like(x);
  std::vector<double> by_value(rows.chunks()), by_slope(rows.chunks());
  if (x.scalar_type() == at::kDouble) {
    exact_backward<double>(rows, grad, x, grad_x, levels, thresholds, alpha, beta, at.value_at, at.slope_at, by_value,
                           by_slope, by_threshold);
  } else if (need_thresholds || (strategy == Strategy::kAuto && x.numel() * n <= kExactTerms)) {
    exact_backward<float>(rows, grad, x, grad_x, levels, thresholds, alpha, beta, at.value_at, at.slope_at, by_value,
                          by_slope, by_threshold);
  } else {
    quick_backward(rows, grad, x, grad_x, levels, thresholds, alpha, beta, at, strategy, by_value, by_slope);
  }
  std::vector<double> slopes = rows.sum_chunks(by_slope);
  for (int64_t c = 0; c < rows.channels; ++c) slopes[c] *= at.value_at * number_at(alpha, c);
  const at::Tensor of_thresholds =
      need_thresholds ? as_tensor(by_threshold, thresholds) : at::empty({0}, threshold_options);
  return {as_like(grad_x, x, x_), of_thresholds, rows.as_scale(rows.sum_chunks(by_value), alpha_),
          rows.as_scale(slopes, beta_)};
}

void hard_rows(const Rows& rows, const at::Tensor& x, at::Tensor& y, const at::Tensor& levels,
               const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta) {
  const int64_t count = levels.numel();
  const float *y_ = levels.const_data_ptr<float>(), *a = alpha.const_data_ptr<float>(),
              *b = beta.const_data_ptr<float>(), *in = x.const_data_ptr<float>();
  float* out = y.mutable_data_ptr<float>();
  const HardPlan plan = make_hard_plan(thresholds.const_data_ptr<float>(), thresholds.numel());
  rows.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
    static thread_local std::vector<float> outputs;
    outputs.resize(count);
    for (int64_t i = 0; i < count; ++i) outputs[i] = a[c] * y_[i];
    kernels().hard_forward(plan, outputs.data(), in + offset, out + offset, size, b[c]);
  });
}

void hard_rows_double(const Rows& rows, const at::Tensor& x, at::Tensor& y, const at::Tensor& levels,
                      const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta) {
  const double *y_ = levels.const_data_ptr<double>(), *first = thresholds.const_data_ptr<double>(),
               *last = first + thresholds.numel(), *a = alpha.const_data_ptr<double>(),
               *b = beta.const_data_ptr<double>(), *in = x.const_data_ptr<double>();
  double* out = y.mutable_data_ptr<double>();
  rows.parallel([&](int64_t, int64_t c, int64_t offset, int64_t size) {
    for (int64_t i = offset; i < offset + size; ++i) {
      const double t = in[i] * b[c];
      out[i] = std::isnan(t) ? t : a[c] * y_[std::upper_bound(first, last, t) - first];
    }
  });
}

// The operators.

at::Tensor soft_quantize(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                         const at::Tensor& alpha, const at::Tensor& beta, const at::Tensor& temperature,
                         c10::optional<double>, c10::optional<double>) {
  check_function(x, levels, thresholds, alpha, beta);
  return soft_forward(x, levels, thresholds, alpha, beta, temperature_of(temperature), Strategy::kAuto);
}

Gradients soft_quantize_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& levels,
                                 const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta,
                                 const at::Tensor& temperature, c10::optional<double> backward_temperature,
                                 c10::optional<double> surrogate_temperature, bool need_thresholds) {
  check_function(x, levels, thresholds, alpha, beta);
  check_like(grad, x, "grad");
  const BackwardTemperatures at(temperature_of(temperature), backward_temperature, surrogate_temperature);
  return soft_backward(grad, x, levels, thresholds, alpha, beta, at, need_thresholds, Strategy::kAuto);
}

// For tests: the function and its gradients by one of the ways.
Gradients soft_by_strategy(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& levels,
                           const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta,
                           const at::Tensor& temperature, c10::optional<double> backward_temperature,
                           c10::optional<double> surrogate_temperature, int64_t strategy_) {
  check_function(x, levels, thresholds, alpha, beta);
  check_like(grad, x, "grad");
  const auto strategy = static_cast<Strategy>(strategy_);
  const double t = temperature_of(temperature);
  const BackwardTemperatures at(t, backward_temperature, surrogate_temperature);
  auto out = soft_backward(grad, x, levels, thresholds, alpha, beta, at, false, strategy);
  std::get<1>(out) = soft_forward(x, levels, thresholds, alpha, beta, t, strategy);
  return out;
}

at::Tensor hard_quantize(const at::Tensor& x_, const at::Tensor& levels, const at::Tensor& thresholds,
                         const at::Tensor& alpha_, const at::Tensor& beta_) {
  check_function(x_, levels, thresholds, alpha_, beta_);
  if (!x_.numel()) return at::empty_like(x_);
  const Rows rows(x_, alpha_, beta_);
  const at::Tensor x = rows.arrange(x_), alpha = rows.by_channel(alpha_), beta = rows.by_channel(beta_);
  at::Tensor y = at::empty_like(x);
  const auto of_type = x.scalar_type() == at::kDouble ? hard_rows_double : hard_rows;
  of_type(rows, x, y, levels.contiguous(), thresholds.contiguous(), alpha, beta);
  return as_like(y, x, x_);
}

}  // namespace
}  // namespace mmqnet

TORCH_LIBRARY_FRAGMENT(mmqnet, m) {
  m.def(
      "_soft_by_strategy(Tensor grad, Tensor x, Tensor levels, Tensor thresholds, Tensor alpha, Tensor beta, "
      "Tensor temperature, float? backward_temperature, float? surrogate_temperature, int strategy) -> "
      "(Tensor grad_x, Tensor y, Tensor grad_alpha, Tensor grad_beta)");
}

TORCH_LIBRARY_IMPL(mmqnet, CPU, m) {
  m.impl("soft_quantize", &mmqnet::soft_quantize);
  m.impl("soft_quantize_backward", &mmqnet::soft_quantize_backward);
  m.impl("hard_quantize", &mmqnet::hard_quantize);
  m.impl("_soft_by_strategy", &mmqnet::soft_by_strategy);
}
