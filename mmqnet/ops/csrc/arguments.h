// Copyright (c) mmqnet developers. All rights reserved.
// Checks of the operators' arguments, with the messages of arguments.py.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/Optional.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

namespace mmqnet {

// As Python writes it: (2, 3), (2,) or ().
inline std::string shape_text(at::IntArrayRef sizes) {
  std::ostringstream out;
  out << '(';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << (sizes.size() == 1 ? ",)" : ")");
  return out.str();
}

inline void check_float(const at::Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
                   "`x` should be of float32 or float64, but got ", x.dtype());
}

inline void check_dtype(const at::Tensor& tensor, const at::Tensor& x, const char* name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == x.scalar_type(), "`", name, "` should be of the dtype of x, ", x.dtype(),
                   ", not ", tensor.dtype());
}

inline void check_vector(const at::Tensor& vector, const at::Tensor& x, const char* name) {
  check_dtype(vector, x, name);
  TORCH_CHECK_VALUE(vector.dim() == 1 && vector.numel() > 0, "`", name,
                    "` should be a vector of at least one number, but got shape ", shape_text(vector.sizes()));
}

inline void check_scale(const at::Tensor& scale, const at::Tensor& x, const char* name) {
  check_dtype(scale, x, name);
  if (scale.numel() == 1) return;
  bool fits = scale.dim() <= x.dim();
  for (int64_t d = 1; fits && d <= scale.dim(); ++d) {
    const int64_t size = scale.size(scale.dim() - d);
    fits = size == 1 || size == x.size(x.dim() - d);
  }
  TORCH_CHECK_VALUE(fits, "`", name, "` should be a scalar or broadcastable to x of shape ", shape_text(x.sizes()),
                    ", but got shape ", shape_text(scale.sizes()));
}

inline void check_function(const at::Tensor& x, const at::Tensor& levels, const at::Tensor& thresholds,
                           const at::Tensor& alpha, const at::Tensor& beta) {
  check_float(x);
  check_vector(thresholds, x, "thresholds");
  check_vector(levels, x, "levels");
  TORCH_CHECK_VALUE(thresholds.numel() == levels.numel() - 1, "`thresholds` should be one fewer than the ",
                    levels.numel(), " `levels`, but got ", thresholds.numel(), " thresholds");
  check_scale(alpha, x, "alpha");
  check_scale(beta, x, "beta");
}

inline void check_like(const at::Tensor& tensor, const at::Tensor& x, const char* name) {
  check_dtype(tensor, x, name);
  TORCH_CHECK_VALUE(tensor.sizes() == x.sizes(), "`", name, "` should be of the shape of x, ", shape_text(x.sizes()),
                    ", but got shape ", shape_text(tensor.sizes()));
}

inline void check_straight_through(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                   const at::Tensor& levels, const at::Tensor& alpha) {
  check_float(x);
  check_like(grad, x, "grad");
  check_like(y, x, "y");
  check_vector(levels, x, "levels");
  check_scale(alpha, x, "alpha");
}

inline double temperature_of(const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.numel() == 1, "`temperature` should be a number or a 0-d tensor, but got shape ",
                    shape_text(tensor.sizes()));
  const bool is_float = tensor.scalar_type() == at::kFloat;
  const double number = is_float ? *tensor.const_data_ptr<float>() : tensor.item().toDouble();
  TORCH_CHECK_VALUE(number > 0 && std::isfinite(number), "`temperature` should be positive and finite, but got ",
                    number);
  return number;
}

// Where the backward pass takes the function and its slope.
struct BackwardTemperatures {
  double value_at, slope_at;

  BackwardTemperatures(double temperature, c10::optional<double> backward, c10::optional<double> surrogate)
      : value_at(surrogate ? std::min(temperature, *surrogate) : temperature), slope_at(backward.value_or(value_at)) {}
};

}  // namespace mmqnet
