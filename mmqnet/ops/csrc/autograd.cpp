// Copyright (c) mmqnet developers. All rights reserved.
// Gradients on the CPU, as those of library.py: on a small tensor, an autograd function in Python takes longer than the
// arithmetic. Both passes call the operators through the dispatcher, so that a trace sees them.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include <tuple>

namespace mmqnet {
namespace {

using at::Tensor;
using c10::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // of x, thresholds, alpha and beta

template <typename Signature>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

Tensor call_soft(const Tensor& x, const Tensor& levels, const Tensor& thresholds, const Tensor& alpha,
                 const Tensor& beta, const Tensor& temperature, optional<double> backward, optional<double> surrogate) {
  static const auto op = find_operator<decltype(call_soft)>("mmqnet::soft_quantize");
  return op.call(x, levels, thresholds, alpha, beta, temperature, backward, surrogate);
}

Gradients call_backward(const Tensor& grad, const Tensor& x, const Tensor& levels, const Tensor& thresholds,
                        const Tensor& alpha, const Tensor& beta, const Tensor& temperature, optional<double> backward,
                        optional<double> surrogate, bool need_thresholds) {
  static const auto op = find_operator<decltype(call_backward)>("mmqnet::soft_quantize_backward");
  return op.call(grad, x, levels, thresholds, alpha, beta, temperature, backward, surrogate, need_thresholds);
}

Tensor call_hard(const Tensor& x, const Tensor& levels, const Tensor& thresholds, const Tensor& alpha,
                 const Tensor& beta) {
  static const auto op = find_operator<decltype(call_hard)>("mmqnet::hard_quantize");
  return op.call(x, levels, thresholds, alpha, beta);
}

// Recomputes in the backward pass, so that x is the only tensor of its size that is kept.
struct SoftQuantize : torch::autograd::Function<SoftQuantize> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& levels, const Tensor& thresholds,
                        const Tensor& alpha, const Tensor& beta, const Tensor& temperature, optional<double> backward,
                        optional<double> surrogate) {
    ctx->save_for_backward({x, levels, thresholds, alpha, beta, temperature});
    ctx->saved_data["backward"] = backward;
    ctx->saved_data["surrogate"] = surrogate;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_soft(x, levels, thresholds, alpha, beta, temperature, backward, surrogate);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    constexpr size_t kThresholds = 2;
    const variable_list saved = ctx->get_saved_variables();
    const bool need_thresholds = ctx->needs_input_grad(kThresholds);
    auto [by_x, by_thresholds, by_alpha, by_beta] =
        call_backward(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5],
                      ctx->saved_data["backward"].toOptional<double>(),
                      ctx->saved_data["surrogate"].toOptional<double>(), need_thresholds);
    return {by_x, {}, need_thresholds ? by_thresholds : Tensor(), by_alpha, by_beta, {}, {}, {}};
  }
};

Tensor soft_quantize(const Tensor& x, const Tensor& levels, const Tensor& thresholds, const Tensor& alpha,
                     const Tensor& beta, const Tensor& temperature, optional<double> backward,
                     optional<double> surrogate) {
  if (torch::autograd::compute_requires_grad(x, thresholds, alpha, beta)) {
    return SoftQuantize::apply(x, levels, thresholds, alpha, beta, temperature, backward, surrogate);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_soft(x, levels, thresholds, alpha, beta, temperature, backward, surrogate);
}

// Gradients that must not be taken for constants where somebody differentiates them.
Gradients once_differentiable(const Gradients& grads) {
  const auto& [by_x, by_thresholds, by_alpha, by_beta] = grads;
  variable_list inputs;
  for (const auto& grad : {by_x, by_thresholds, by_alpha, by_beta}) {
    inputs.push_back(grad.detach().requires_grad_());
  }
  const auto error = std::make_shared<torch::autograd::DelayedError>(
      "a quantization function can be differentiated once only", static_cast<int64_t>(inputs.size()));
  const variable_list out = (*error)(std::move(inputs));
  return {out[0], out[1], out[2], out[3]};
}

Gradients soft_quantize_backward(const Tensor& grad, const Tensor& x, const Tensor& levels, const Tensor& thresholds,
                                 const Tensor& alpha, const Tensor& beta, const Tensor& temperature,
                                 optional<double> backward, optional<double> surrogate, bool need_thresholds) {
  Gradients out;
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    out = call_backward(grad, x, levels, thresholds, alpha, beta, temperature, backward, surrogate, need_thresholds);
  }
  const bool differentiated = torch::autograd::compute_requires_grad(grad, x, thresholds, alpha, beta);
  return differentiated ? once_differentiable(out) : out;
}

// Piecewise constant: there is nothing to learn.
Tensor hard_quantize(const Tensor& x, const Tensor& levels, const Tensor& thresholds, const Tensor& alpha,
                     const Tensor& beta) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_hard(x, levels, thresholds, alpha, beta);
}

}  // namespace
}  // namespace mmqnet

TORCH_LIBRARY_IMPL(mmqnet, AutogradCPU, m) {
  m.impl("soft_quantize", &mmqnet::soft_quantize);
  m.impl("soft_quantize_backward", &mmqnet::soft_quantize_backward);
  m.impl("hard_quantize", &mmqnet::hard_quantize);
}
