// Copyright (c) mmqnet developers. All rights reserved.
// Plans of the soft function: which way is the fastest, and what was prepared for it before.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "plan.h"

namespace mmqnet {

// The plan of these arguments, kept for the backward pass and for the next steps: thresholds hardly ever change.
std::shared_ptr<const SoftPlan> soft_plan(const at::Tensor& levels, const at::Tensor& thresholds, double temperature,
                                          int64_t numel, Strategy wish);

}  // namespace mmqnet
