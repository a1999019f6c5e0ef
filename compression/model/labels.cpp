#include "compression/model/labels.h"

#include <torch/torch.h>

#include <set>
#include <span>

namespace preceptor::compression {
namespace {

std::span<const std::int64_t> flat(const at::Tensor& contiguous) {
  return {contiguous.data_ptr<std::int64_t>(), std::size_t(contiguous.numel())};
}

}  // namespace

at::Tensor Labels::fresh(std::int64_t count) {
  const auto first = this->count();
  for (std::int64_t i = 0; i < count; ++i) parents_.push_back(first + i);
  fixed_.resize(parents_.size());
  reasons_.resize(parents_.size());
  return torch::arange(first, first + count);
}

std::int64_t Labels::root(std::int64_t label) const {
  while (parents_[std::size_t(label)] != label) {
    auto& parent = parents_[std::size_t(label)];
    label = parent = parents_[std::size_t(parent)];
  }
  return label;
}

void Labels::join(std::int64_t a, std::int64_t b) {
  a = root(a), b = root(b);
  if (a == b || a == 0 || b == 0) return;
  const auto to = std::size_t(std::min(a, b)), from = std::size_t(std::max(a, b));
  parents_[from] = std::int64_t(to);
  if (reasons_[to].empty()) reasons_[to] = reasons_[from];
  if (fixed_[from]) fixed_[to] = true;
}

void Labels::join(const at::Tensor& a, const at::Tensor& b) {
  const auto both = torch::broadcast_tensors({a, b});
  const auto x = both[0].contiguous(), y = both[1].contiguous();
  for (std::size_t i = 0; i < flat(x).size(); ++i) join(flat(x)[i], flat(y)[i]);
}

void Labels::fix(const at::Tensor& labels, const std::string& reason) {
  const auto all = labels.contiguous();
  for (const auto label : flat(all)) {
    const auto at = std::size_t(root(label));
    if (at == 0) continue;
    fixed_[at] = true;
    if (reasons_[at].empty()) reasons_[at] = reason;
  }
}

at::Tensor Labels::shortest(const at::Tensor& labels) const {
  auto roots = labels.contiguous().clone();
  for (auto& label : std::span(roots.data_ptr<std::int64_t>(), std::size_t(roots.numel()))) label = root(label);
  for (std::int64_t d = roots.dim() - 1; d >= 0; --d) {
    if (roots.size(d) < 2) continue;
    const auto one = roots.amax(d, /*keepdim=*/true);
    if (roots.eq(one).logical_or(roots.eq(0)).all().item<bool>()) roots = one;
  }
  return roots;
}

at::Tensor Labels::along(const at::Tensor& labels, std::int64_t dim) {
  const auto rows = labels.movedim(dim, 0).reshape({labels.size(dim), -1});
  const auto first = rows.amax(1, /*keepdim=*/true);
  join(rows, first);
  return shortest(first).expand({labels.size(dim), 1}).squeeze(1);
}

std::int64_t Labels::count_along(const at::Tensor& labels, std::int64_t dim) const {
  auto copy = *this;
  const auto left = copy.along(labels, dim).contiguous();
  return std::int64_t(std::set<std::int64_t>(flat(left).begin(), flat(left).end()).size());
}

at::Tensor spread(const at::Tensor& vector, std::int64_t dims, std::int64_t dim) {
  std::vector<std::int64_t> shape(std::size_t(dims), 1);
  shape[std::size_t(dim)] = vector.size(0);
  return vector.reshape(shape);
}

}  // namespace preceptor::compression
