#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace preceptor::compression {

/// What can only be removed together has one label: a union-find over labels 1, 2, …, in which some are fixed, with a
/// reason. 0 stands for an element that goes with whatever is around it, as padding does.
/// A tensor of labels, int64, has the number of dimensions of the value that it describes; a side of 1 says that the
/// label does not depend on that dimension. An element is removed when its label is.
class Labels {
 public:
  /// Labels that nothing joins yet, [count].
  at::Tensor fresh(std::int64_t count);
  std::int64_t root(std::int64_t label) const;
  void join(std::int64_t a, std::int64_t b);
  /// Of two tensors that broadcast, element by element.
  void join(const at::Tensor& a, const at::Tensor& b);
  /// The first reason that is not empty stays; an empty one is not worth telling.
  void fix(const at::Tensor& labels, const std::string& reason);
  bool fixed(std::int64_t label) const { return fixed_[std::size_t(root(label))]; }
  const std::string& reason(std::int64_t label) const { return reasons_[std::size_t(root(label))]; }
  std::int64_t count() const { return std::int64_t(parents_.size()); }

  /// Each label replaced by the one that stands for all joined with it; sides along which nothing differs become 1.
  at::Tensor shortest(const at::Tensor& labels) const;
  /// Joins along all dimensions but `dim`, after which the labels depend on that one alone. Returns them, [size of dim].
  at::Tensor along(const at::Tensor& labels, std::int64_t dim);
  /// How many labels along() would leave.
  std::int64_t count_along(const at::Tensor& labels, std::int64_t dim) const;

 private:
  mutable std::vector<std::int64_t> parents_{0};
  std::vector<bool> fixed_{false};
  std::vector<std::string> reasons_{""};
};

/// [n] as a tensor of `dims` dimensions that varies along `dim`.
at::Tensor spread(const at::Tensor& vector, std::int64_t dims, std::int64_t dim);

}  // namespace preceptor::compression
