// Copyright (c) mmqnet developers. All rights reserved.
// The soft function as one differentiable operator: on a small tensor, an autograd function in Python takes longer than
// the arithmetic.

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/library.h>

#include "quantize.h"

namespace mmqnet {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Recomputes in the backward pass, so that x is the only tensor of its size that is kept.
struct SoftQuantize : torch::autograd::Function<SoftQuantize> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& levels,
                            const at::Tensor& thresholds, const at::Tensor& alpha, const at::Tensor& beta,
                            int64_t inner, double temperature, double value_at, double slope_at, int64_t strategy) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, levels, thresholds, alpha, beta});
    ctx->saved_data["inner"] = inner;
    ctx->saved_data["value_at"] = value_at;
    ctx->saved_data["slope_at"] = slope_at;
    ctx->saved_data["strategy"] = strategy;
    return soft_forward(x, levels, thresholds, alpha, beta, inner, temperature, strategy);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    constexpr size_t kThresholds = 2;
    const variable_list saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    Gradients out;
    {
      const at::AutoDispatchBelowADInplaceOrView guard;
      out = soft_backward(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], data["inner"].toInt(),
                          data["value_at"].toDouble(), data["slope_at"].toDouble(), ctx->needs_input_grad(kThresholds),
                          data["strategy"].toInt());
    }
    variable_list inputs{out.x, {}, out.thresholds, out.alpha, out.beta, {}, {}, {}, {}, {}};
    return at::GradMode::is_enabled() ? once_differentiable(std::move(inputs)) : inputs;
  }

  // Gradients that must not be taken for constants where somebody differentiates them.
  static variable_list once_differentiable(variable_list inputs) {
    variable_list defined;
    for (const auto& input : inputs) {
      if (input.defined()) defined.push_back(input.detach().requires_grad_());
    }
    const auto error = std::make_shared<torch::autograd::DelayedError>(
        "the soft quantization function can be differentiated once only", static_cast<int64_t>(defined.size()));
    defined = (*error)(std::move(defined));
    auto next = defined.begin();
    for (auto& input : inputs) {
      if (input.defined()) input = *next++;
    }
    return inputs;
  }
};

at::Tensor soft_quantize(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                         const at::Tensor& alpha, const at::Tensor& beta, int64_t inner, double temperature,
                         double value_at, double slope_at, int64_t strategy) {
  return SoftQuantize::apply(x, levels, thresholds, alpha, beta, inner, temperature, value_at, slope_at, strategy);
}

}  // namespace
}  // namespace mmqnet

TORCH_LIBRARY_IMPL(mmqnet, AutogradCPU, m) { m.impl("soft_quantize", &mmqnet::soft_quantize); }
