// Copyright (c) mmqnet developers. All rights reserved.
// Straight-through gradients of a clipped rounding on the CPU, in one pass over the tensors.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "arguments.h"
#include "kernels.h"
#include "rows.h"

namespace mmqnet {
namespace {

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of x and log(alpha), and the sum over what is clipped

// The loop over one row in double, as that of kernel.h in float.
void double_loop(const double* grad, const double* x, const double* y, double* grad_x, int64_t size, double low,
                 double high, double* by_log_alpha, double* clipped) {
  for (int64_t i = 0; i < size; ++i) {
    const bool outside = x[i] < low || x[i] > high;
    grad_x[i] = outside ? 0.0 : grad[i];
    *by_log_alpha += grad[i] * (y[i] - (outside ? 0.0 : x[i]));
    *clipped += outside ? grad[i] : 0.0;
  }
}

template <typename scalar_t, typename Loop>
Gradients by_rows(const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& y_, const at::Tensor& levels,
                  const at::Tensor& alpha_, const Loop& loop) {
  const Rows rows(x_, alpha_, alpha_);
  const at::Tensor x = rows.arrange(x_), alpha = rows.by_channel(alpha_), ends = levels.contiguous();
  const at::Tensor grad = with_strides_of(grad_, x), y = with_strides_of(y_, x);
  at::Tensor grad_x = at::empty_like(x);
  std::vector<double> by_log_alpha(rows.chunks()), clipped(rows.chunks());
  const scalar_t *g = grad.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>(),
                 *rounded = y.const_data_ptr<scalar_t>(), *a = alpha.const_data_ptr<scalar_t>(),
                 *ends_ = ends.const_data_ptr<scalar_t>();
  const scalar_t lowest = ends_[0], highest = ends_[ends.numel() - 1];
  scalar_t* out = grad_x.mutable_data_ptr<scalar_t>();
  rows.parallel([&](int64_t chunk, int64_t c, int64_t offset, int64_t size) {
    loop(g + offset, in + offset, rounded + offset, out + offset, size, a[c] * lowest, a[c] * highest,
         &by_log_alpha[chunk], &clipped[chunk]);
  });
  return {as_like(grad_x, x, x_), rows.as_scale(rows.sum_chunks(by_log_alpha), alpha_),
          rows.as_scale(rows.sum_chunks(clipped), alpha_)};
}

Gradients straight_through_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                    const at::Tensor& levels, const at::Tensor& alpha) {
  check_straight_through(grad, x, y, levels, alpha);
  if (!x.numel()) return {at::empty_like(x), at::zeros_like(alpha), at::zeros_like(alpha)};
  if (x.scalar_type() == at::kDouble) return by_rows<double>(grad, x, y, levels, alpha, double_loop);
  return by_rows<float>(grad, x, y, levels, alpha, kernels().straight_through_backward);
}

}  // namespace
}  // namespace mmqnet

TORCH_LIBRARY_IMPL(mmqnet, CPU, m) { m.impl("straight_through_backward", &mmqnet::straight_through_backward); }
