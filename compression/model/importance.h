#pragma once
#include "compression/model/channels.h"
#include "training/training.h"

namespace preceptor::compression {

/// What a criterion may look at. Where a criterion needs gradients, `objective` and `dataset` are given; both outlive it.
struct Evidence {
  training::Objective* objective = nullptr;
  const data::Dataset* dataset = nullptr;
  int batches = 8;  ///< of the data set, from its start
  int batch = 32;
};

/// How much each unit of a network matters. One instance a network; called once a group.
class Criterion {
 public:
  virtual ~Criterion() = default;
  /// Float64 [units], not negative; only their order and ratios within the group count.
  virtual at::Tensor scores(const Group& group) = 0;
};

/// The model and evidence outlive the criterion. Error: kInvalid where a criterion lacks evidence.
using MakeCriterion = std::function<Result<std::unique_ptr<Criterion>>(models::FlatModel& model, const Evidence& evidence)>;
Registry<MakeCriterion>& criteria();
struct RegisterCriterion {
  RegisterCriterion(const char* name, MakeCriterion make) { criteria().add(name, std::move(make)); }
};

/// The sum over a unit's elements of a slot of [size of the slot's dimension], added to units [units].
void add_by_unit(at::Tensor& units, const Slot& slot, const at::Tensor& by_element);

/// Sums over all dimensions but one: [size of dim], float64.
at::Tensor sum_along(const at::Tensor& tensor, std::int64_t dim);

}  // namespace preceptor::compression
