// Copyright (c) mmqnet developers. All rights reserved.
// The soft function and its gradients, as the autograd function calls them.
#pragma once

#include <ATen/core/Tensor.h>

namespace mmqnet {

// A tensor is seen as rows of `inner` elements, row r with the scales of channel r % channels; `inner` counts only
// where there are several channels.
at::Tensor soft_forward(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                        const at::Tensor& alpha, const at::Tensor& beta, int64_t inner, double temperature,
                        int64_t strategy);

struct Gradients {
  at::Tensor x, thresholds, alpha, beta;  // thresholds: undefined unless needed
};

// `grad` times the derivatives of the function at `value_at`, with the slope at `slope_at` times `value_at`.
Gradients soft_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& levels,
                        const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta, int64_t inner,
                        double value_at, double slope_at, bool need_thresholds, int64_t strategy);

}  // namespace mmqnet
