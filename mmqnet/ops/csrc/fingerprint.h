// Copyright (c) mmqnet developers. All rights reserved.
// A hash of tensors that tells whether any of their bytes has changed.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace mmqnet {

constexpr int64_t kHashChunk = 1 << 16;  // bytes; a chunk is hashed by one thread

// A bijection of the state for every word, and of the word for every state: a change of one word always shows.
inline uint64_t hash_step(uint64_t state, uint64_t word) {
  const uint64_t mixed = (state ^ word) * 0x9E3779B97F4A7C15u;
  return (mixed << 29) | (mixed >> 35);
}

inline uint64_t hash_bytes(const char* bytes, int64_t size) {
  constexpr int kWays = 8;  // independent, to hide the latency of the multiplication
  uint64_t state[kWays], words[kWays];
  for (int j = 0; j < kWays; ++j) state[j] = hash_step(size, j);
  int64_t i = 0;
  for (; i + static_cast<int64_t>(sizeof(words)) <= size; i += sizeof(words)) {
    std::memcpy(words, bytes + i, sizeof(words));
    for (int j = 0; j < kWays; ++j) state[j] = hash_step(state[j], words[j]);
  }
  std::memset(words, 0, sizeof(words));
  std::memcpy(words, bytes + i, size - i);
  uint64_t hash = 0;
  for (int j = 0; j < kWays; ++j) hash = hash_step(hash, hash_step(state[j], words[j]));
  return hash_step(hash ^ (hash >> 32), size);
}

// Of values, shapes and dtypes; the same for any number of threads. As a tensor: torch.jit.trace takes no other result.
inline at::Tensor fingerprint(at::TensorList tensors) {
  uint64_t hash = tensors.size();
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor dense = tensor.contiguous();
    const char* bytes = static_cast<const char*>(dense.const_data_ptr());
    const int64_t size = static_cast<int64_t>(dense.nbytes());
    std::vector<uint64_t> chunks((size + kHashChunk - 1) / kHashChunk);
    at::parallel_for(0, static_cast<int64_t>(chunks.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t start = c * kHashChunk;
        chunks[c] = hash_bytes(bytes + start, std::min(kHashChunk, size - start));
      }
    });
    for (const uint64_t chunk : chunks) hash = hash_step(hash, chunk);
    for (const int64_t extent : tensor.sizes()) hash = hash_step(hash, extent);
    hash = hash_step(hash, static_cast<uint64_t>(tensor.scalar_type()));
  }
  at::Tensor out = at::empty({}, at::TensorOptions(at::kLong));
  *out.mutable_data_ptr<int64_t>() = static_cast<int64_t>(hash ^ (hash >> 29));
  return out;
}

}  // namespace mmqnet
