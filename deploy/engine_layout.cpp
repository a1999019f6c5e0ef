#include "deploy/engine_layout.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace preceptor::deploy {

std::int64_t View::elements() const { return std::accumulate(sizes.begin(), sizes.end(), std::int64_t(1), std::multiplies{}); }

Dims order_of(const View& view) {
  Dims order(view.sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return view.strides[std::size_t(a)] > view.strides[std::size_t(b)]; });
  return order;
}

Dims dense_strides(const Dims& sizes, const Dims& order) {
  Dims strides(sizes.size());
  std::int64_t next = 1;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    strides[std::size_t(*i)] = next;
    next *= sizes[std::size_t(*i)];
  }
  return strides;
}

Dims contiguous(const Dims& sizes) {
  Dims order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  return dense_strides(sizes, order);
}

Dims channels_last(const Dims& sizes) { return sizes.size() == 4 ? dense_strides(sizes, {0, 2, 3, 1}) : contiguous(sizes); }

std::optional<View> reshaped(const View& view, const Dims& sizes) {
  View made{view.buffer, view.offset, sizes, Dims(sizes.size())};
  // From the fastest dimension on: runs of old dimensions that one stride describes are cut into new ones.
  auto next = std::int64_t(sizes.size()) - 1;
  std::int64_t old_run = 1, new_run = 1;
  std::int64_t base = view.strides.empty() ? 1 : view.strides.back();
  for (auto d = std::int64_t(view.sizes.size()) - 1; d >= 0; --d) {
    const auto i = std::size_t(d);
    old_run *= view.sizes[i];
    if (d != 0 && (view.sizes[i - 1] == 1 || view.strides[i - 1] == old_run * base)) continue;
    while (next >= 0 && (new_run < old_run || sizes[std::size_t(next)] == 1)) {
      made.strides[std::size_t(next)] = new_run * base;
      new_run *= sizes[std::size_t(next)];
      --next;
    }
    if (new_run != old_run) return std::nullopt;
    if (d > 0) base = view.strides[i - 1], old_run = new_run = 1;
  }
  for (; next >= 0; --next) made.strides[std::size_t(next)] = base;
  return made;
}

View permuted(const View& view, const Dims& dims) {
  View made{view.buffer, view.offset, {}, {}};
  for (auto d : dims) {
    made.sizes.push_back(view.sizes[std::size_t(d)]);
    made.strides.push_back(view.strides[std::size_t(d)]);
  }
  return made;
}

View narrowed(View view, std::int64_t dim, std::int64_t start, std::int64_t length) {
  view.offset += start * view.strides[std::size_t(dim)];
  view.sizes[std::size_t(dim)] = length;
  return view;
}

View broadcast(const View& view, const Dims& sizes) {
  View made{view.buffer, view.offset, sizes, Dims(sizes.size())};
  for (std::size_t i = 0; i < view.sizes.size(); ++i) {
    const auto to = sizes.size() - 1 - i, from = view.sizes.size() - 1 - i;
    if (view.sizes[from] != 1) made.strides[to] = view.strides[from];
  }
  return made;
}

std::optional<std::int64_t> row_stride(const View& view) {
  if (view.sizes.empty() || (view.sizes.back() != 1 && view.strides.back() != 1)) return std::nullopt;
  std::optional<std::int64_t> stride;
  std::int64_t rows = 1;
  for (auto d = std::int64_t(view.sizes.size()) - 2; d >= 0; --d) {
    if (view.sizes[std::size_t(d)] == 1) continue;
    if (!stride) stride = view.strides[std::size_t(d)];
    else if (view.strides[std::size_t(d)] != *stride * rows) return std::nullopt;
    rows *= view.sizes[std::size_t(d)];
  }
  return stride.value_or(view.sizes.back());
}

kernels::Loop make_loop(std::span<const View> operands) {
  kernels::Loop loop;
  const auto& sizes = operands[0].sizes;
  const auto stride = [&](std::size_t operand, std::int64_t d) { return operands[operand].strides[std::size_t(d)]; };
  for (const auto d : order_of(operands[0])) {
    if (sizes[std::size_t(d)] == 1) continue;
    bool merged = loop.dims > 0;
    const auto last = std::size_t(std::max(0, loop.dims - 1));
    for (std::size_t i = 0; i < operands.size() && merged; ++i) merged = loop.strides[i][last] == stride(i, d) * sizes[std::size_t(d)];
    if (!merged && loop.dims == kernels::kMaxDims) throw std::logic_error("a tensor of more dimensions than the kernels loop over");
    const auto at = merged ? last : std::size_t(loop.dims++);
    loop.sizes[at] = merged ? loop.sizes[at] * sizes[std::size_t(d)] : sizes[std::size_t(d)];
    for (std::size_t i = 0; i < operands.size(); ++i) loop.strides[i][at] = stride(i, d);
  }
  if (loop.dims == 0) {
    loop.dims = 1;
    loop.sizes[0] = 1;
  }
  return loop;
}

}  // namespace preceptor::deploy
