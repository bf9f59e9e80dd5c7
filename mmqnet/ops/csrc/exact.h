// Copyright (c) mmqnet developers. All rights reserved.
// The quantization function in double, one element at a time: for double tensors and for gradients of thresholds.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace mmqnet {

class ExactPlan {
 public:
  ExactPlan(const at::Tensor& levels, const at::Tensor& thresholds, double temperature) : temperature_(temperature) {
    const at::Tensor y = levels.to(at::kDouble).contiguous(), b = thresholds.to(at::kDouble).contiguous();
    levels_.assign(y.const_data_ptr<double>(), y.const_data_ptr<double>() + y.numel());
    thresholds_.assign(b.const_data_ptr<double>(), b.const_data_ptr<double>() + b.numel());
  }

  int64_t size() const { return static_cast<int64_t>(thresholds_.size()); }

  // Y_0 + sum_i s_i * g_i
  double value(double scaled) const {
    const int64_t first = begin(scaled);
    double total = levels_[first];
    for (int64_t i = first; i < size() && !beyond(scaled, i); ++i) {
      total += (levels_[i + 1] - levels_[i]) / (1.0 + std::exp((thresholds_[i] - scaled) * temperature_));
    }
    return total;
  }

  // D = sum_i s_i * g_i * (1 - g_i); adds the terms times `weight` to `by_threshold` unless it is null.
  double slope(double scaled, double weight, double* by_threshold) const {
    double total = 0;
    for (int64_t i = begin(scaled); i < size() && !beyond(scaled, i); ++i) {
      const double e = std::exp(-std::abs((thresholds_[i] - scaled) * temperature_)), g = 1.0 / (1.0 + e);
      const double term = (levels_[i + 1] - levels_[i]) * (e * g) * g;
      total += term;
      if (by_threshold) by_threshold[i] += weight * term;
    }
    return total;
  }

 private:
  // exp(-750) is 0 in double, but the sum is complete to the last bit far before, unless it is all there is.
  static constexpr double kReach = 40.0;

  int64_t begin(double scaled) const {
    const auto at = [&](double t) {
      return std::lower_bound(thresholds_.begin(), thresholds_.end(), t) - thresholds_.begin();
    };
    const int64_t first = at(scaled - kReach / temperature_), below = at(scaled) - 1;
    return std::max<int64_t>(0, std::min(first, below));
  }

  bool beyond(double scaled, int64_t i) const {
    return i > 0 && thresholds_[i - 1] >= scaled && thresholds_[i] > scaled + kReach / temperature_;
  }

  std::vector<double> levels_, thresholds_;
  double temperature_;
};

}  // namespace mmqnet
