#pragma once
#include <optional>
#include <span>

#include "deploy/engine_program.h"
#include "deploy/kernels/elementwise.h"

/// Tensors as views with strides, so that most reshapes, transpositions and slices cost nothing.
namespace preceptor::deploy {

struct View {
  int buffer = -1;
  std::int64_t offset = 0;  ///< in elements
  Dims sizes, strides;
  std::int64_t elements() const;
};

/// Dimensions from the slowest to the fastest.
Dims order_of(const View& view);
/// Strides of a dense tensor whose dimensions lie in that order.
Dims dense_strides(const Dims& sizes, const Dims& order);
Dims contiguous(const Dims& sizes);
/// [B, C, H, W] with channels fastest; other ranks: contiguous.
Dims channels_last(const Dims& sizes);

/// The same elements under other sizes, if strides can say so.
std::optional<View> reshaped(const View& view, const Dims& sizes);
View permuted(const View& view, const Dims& dims);
View narrowed(View view, std::int64_t dim, std::int64_t start, std::int64_t length);
View broadcast(const View& view, const Dims& sizes);

/// The one stride at which all rows but the last dimension follow each other, if there is one and the last lies together.
std::optional<std::int64_t> row_stride(const View& view);

/// Loops over the first operand's sizes, slowest first, with dimensions merged where all operands allow it.
kernels::Loop make_loop(std::span<const View> operands);

}  // namespace preceptor::deploy
