// Copyright (c) mmqnet developers. All rights reserved.
// The float kernels of the instruction set that this machine has.
#pragma once

#include <cstdint>

#include "plan.h"

namespace mmqnet {

// All of them work on one row of `size` elements with the scales of one channel.
struct Kernels {
  void (*soft_forward)(const SoftPlan& plan, const float* x, float* y, int64_t size, float alpha, float beta);
  // grad_x = scale * grad * D; by_value = sum(grad * f), by_slope = sum(grad * x * D), each unless null.
  void (*soft_backward)(const SoftPlan& plan, const float* grad, const float* x, float* grad_x, int64_t size,
                        float scale, float beta, double* by_value, double* by_slope);
  // Cells [begin, end) of the plan's table. The bits of `lanes` cells depend on which ones those are: begin at one of
  // their multiples.
  void (*fill_table)(SoftPlan& plan, int64_t begin, int64_t end);
  // `outputs`: alpha times the levels.
  void (*hard_forward)(const HardPlan& plan, const float* outputs, const float* x, float* y, int64_t size, float beta);
  // grad_x = grad where x is within [low, high], else 0. by_log_alpha = sum(grad * (y - x)) there
  // plus sum(grad * y) elsewhere, where grad also sums up to `clipped`.
  void (*straight_through_backward)(const float* grad, const float* x, const float* y, float* grad_x, int64_t size,
                                    float low, float high, double* by_log_alpha, double* clipped);
  int64_t lanes;  // computed at once
  const char* name;
};

const Kernels& kernels();

}  // namespace mmqnet
