#include "models/batch_norm.h"

#include "models/kernels/kernels.h"

namespace preceptor::models {
namespace {

constexpr std::int64_t kMostGroups = 16, kFewestChannels = 4;

torch::nn::BatchNormOptions chosen(torch::nn::BatchNormOptions options) {
  return options.track_running_stats(options.track_running_stats() && !GroupedNorms::active());
}

}  // namespace

std::int64_t norm_groups(std::int64_t channels) {
  for (auto groups = std::min(kMostGroups, channels / kFewestChannels); groups > 1; --groups)
    if (channels % groups == 0) return groups;
  return 1;
}

BatchNorm2dImpl::BatchNorm2dImpl(const torch::nn::BatchNormOptions& like) : torch::nn::BatchNorm2dImpl(chosen(like)) {}

torch::Tensor BatchNorm2dImpl::forward(const torch::Tensor& x) {
  if (!grouped()) return torch::nn::BatchNorm2dImpl::forward(x);
  return kernels::group_norm(x, norm_groups(x.size(1)), weight, bias, options.eps());
}

}  // namespace preceptor::models
