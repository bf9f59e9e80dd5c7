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

const Kernels& kernels() {
  static const Kernels chosen = [] {
#ifdef MMQ_DISPATCH
    const char* wish = std::getenv("MMQNET_CPU");  // for tests and comparisons: baseline, avx2 or avx512
    const auto allowed = [&](const char* name) { return !wish || std::string(wish) == name; };
    if (allowed("avx512") && __builtin_cpu_supports("avx512f")) {
      return Kernels{avx512::soft_forward, avx512::soft_backward, avx512::fill_table, avx512::hard_forward, "avx512"};
    }
    if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return Kernels{avx2::soft_forward, avx2::soft_backward, avx2::fill_table, avx2::hard_forward, "avx2"};
    }
#endif
    return Kernels{baseline::soft_forward, baseline::soft_backward, baseline::fill_table, baseline::hard_forward,
                   "baseline"};
  }();
  return chosen;
}

}  // namespace mmqnet
