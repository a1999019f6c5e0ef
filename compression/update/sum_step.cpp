#include "compression/update/sum_step.h"

namespace preceptor::compression {

Result<void> SumStep::apply(std::span<const std::byte> published, std::uint32_t round, std::span<float> model) const {
  const auto sum = TRY(RingSum::of_published(codec_, published));
  const auto closed = TRY(sum.close({seed_, round}));
  move_by_mean(model, closed.mean, rate_);
  repair_variances(space_, model);
  return {};
}

}  // namespace preceptor::compression
