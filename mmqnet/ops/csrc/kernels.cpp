// Copyright (c) mmqnet developers. All rights reserved.
// The float kernels, compiled once for each instruction set.

#include "kernels.h"

#include <cstdlib>
#include <string>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define MMQ_DISPATCH 1
#include <immintrin.h>
#endif

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

namespace mmqnet {

#define MMQ_KERNELS(isa)                                                                     \
  Kernels {                                                                                  \
    isa::soft_forward, isa::soft_backward, isa::fill_table, isa::hard_forward,               \
        isa::straight_through_backward, isa::kLanes, #isa                                    \
  }

const Kernels& kernels() {
  static const Kernels chosen = [] {
#ifdef MMQ_DISPATCH
    const char* wish = std::getenv("MMQNET_CPU");  // for tests and comparisons: baseline, avx2 or avx512
    const auto allowed = [&](const char* name) { return !wish || std::string(wish) == name; };
    if (allowed("avx512") && __builtin_cpu_supports("avx512f")) {
      return MMQ_KERNELS(avx512);
    }
    if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return MMQ_KERNELS(avx2);
    }
#endif
    return MMQ_KERNELS(baseline);
  }();
  return chosen;
}

}  // namespace mmqnet
