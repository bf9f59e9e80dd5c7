// Copyright (c) mmqnet developers. All rights reserved.
// A tensor as rows of elements that share one alpha and beta.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace mmqnet {

constexpr int64_t kChunk = 1 << 14;

inline at::Tensor with_strides_of(const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.strides() == like.strides()) return tensor;
  return at::empty_like(like).copy_(tensor);
}

// A result of arranged x with the strides of x.
inline at::Tensor as_like(const at::Tensor& result, const at::Tensor& arranged, const at::Tensor& x) {
  return arranged.is_same(x) ? result : with_strides_of(result, at::empty_like(x));
}

inline at::Tensor as_tensor(const std::vector<double>& values, const at::Tensor& like) {
  at::Tensor out = at::empty(like.sizes(), like.options());
  if (like.scalar_type() == at::kDouble) {
    std::copy(values.begin(), values.end(), out.mutable_data_ptr<double>());
  } else {
    std::copy(values.begin(), values.end(), out.mutable_data_ptr<float>());
  }
  return out;
}

// Memory as rows of `inner` elements, row r with the scales of channel r % channels, cut into chunks. A channel is an
// index into the dimensions of x from the first to the last one along which a scale varies.
class Rows {
 public:
  int64_t rows, inner, channels = 1, chunks_per_row;

  Rows(const at::Tensor& x, const at::Tensor& alpha, const at::Tensor& beta)
      : inner(x.numel()), dims_(x.dim()), begin_(x.dim()) {
    include(x, alpha);
    include(x, beta);
    if (end_ > 0) {
      const auto product = [&](int64_t from, int64_t to) {
        return std::accumulate(x.sizes().begin() + from, x.sizes().begin() + to, int64_t{1}, std::multiplies<>());
      };
      channels = product(begin_, end_);
      inner = product(end_, x.dim());
      shape_ = x.sizes().slice(begin_, end_ - begin_).vec();
    }
    rows = inner ? x.numel() / inner : 0;
    chunks_per_row = (inner + kChunk - 1) / kChunk;
  }

  int64_t chunks() const { return rows * chunks_per_row; }

  // x with its memory in the order of the rows.
  at::Tensor arrange(const at::Tensor& x) const {
    if (end_ == 0) return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
    const bool by_first = end_ == 1 && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
    return by_first ? x : x.contiguous();
  }

  // A scale as one number for each channel.
  at::Tensor by_channel(const at::Tensor& scale) const {
    if (end_ == 0 || scale.numel() == channels) return scale.contiguous();
    return scale.reshape(shape_of(scale)).expand(shape_).contiguous();
  }

  // Gradients by channel as those of a scale, which may serve several channels.
  at::Tensor as_scale(const std::vector<double>& sums, const at::Tensor& scale) const {
    if (scale.numel() == channels) return as_tensor(sums, scale);
    if (scale.numel() == 1) return as_tensor({std::accumulate(sums.begin(), sums.end(), 0.0)}, scale);
    const at::Tensor all = at::tensor(sums, at::kDouble).view(shape_);
    return all.sum_to_size(shape_of(scale)).reshape(scale.sizes()).to(scale.scalar_type());
  }

  // body(chunk, channel, offset, size)
  template <typename Body>
  void parallel(const Body& body) const {
    const int64_t typical = std::max<int64_t>(1, std::min(inner, kChunk));
    at::parallel_for(0, chunks(), std::max<int64_t>(1, 2 * kChunk / typical), [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t row = chunk / chunks_per_row, start = (chunk % chunks_per_row) * kChunk;
        body(chunk, row % channels, row * inner + start, std::min(kChunk, inner - start));
      }
    });
  }

  // Sums of the chunks by channel, always in the same order.
  std::vector<double> sum_chunks(const std::vector<double>& partial) const {
    std::vector<double> sums(channels, 0.0);
    for (size_t chunk = 0; chunk < partial.size(); ++chunk) {
      sums[(static_cast<int64_t>(chunk) / chunks_per_row) % channels] += partial[chunk];
    }
    return sums;
  }

 private:
  void include(const at::Tensor& x, const at::Tensor& scale) {
    if (scale.numel() == 1) return;
    for (int64_t dim = 0; dim < scale.dim(); ++dim) {
      if (scale.size(dim) == 1) continue;
      const int64_t of_x = dim + x.dim() - scale.dim();
      begin_ = std::min(begin_, of_x);
      end_ = std::max(end_, of_x + 1);
    }
  }

  // The sizes of a scale along the dimensions of the channels.
  std::vector<int64_t> shape_of(const at::Tensor& scale) const {
    std::vector<int64_t> sizes(shape_.size(), 1);
    const int64_t missing = dims_ - scale.dim();
    if (scale.numel() == 1) return sizes;
    for (int64_t dim = std::max(begin_, missing); dim < end_; ++dim) sizes[dim - begin_] = scale.size(dim - missing);
    return sizes;
  }

  int64_t dims_, begin_, end_ = 0;  // the dimensions of the channels; end_ is 0 if one pair of scales serves all
  std::vector<int64_t> shape_;
};

}  // namespace mmqnet
