#include <torch/torch.h>

#include "distill/feature_loss.h"

namespace preceptor::distill {
namespace {

/// Where a network looks: the mean over channels of |A|², as a unit vector of its pixels. [B, C, H, W] → [B, H·W].
at::Tensor attention(const at::Tensor& map) {
  const auto energy = map.square().mean(1).flatten(1);
  return energy / energy.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
}

/// Attention transfer (Zagoruyko 2017, arXiv:1612.03928) with p = 2: 1000 · Σ over stages of the mean square of
/// attention(student) − attention(teacher). Needs no equal number of channels.
class AttentionTransfer : public FeatureLoss {
 public:
  at::Tensor loss(const models::Features& student, const models::Features& teacher) override {
    at::Tensor sum;
    for (const auto& pair : paired_maps(student, teacher)) {
      const auto stage = (attention(pair.student) - attention(pair.teacher)).square().mean();
      sum = sum.defined() ? sum + stage : stage;
    }
    return kWeight * sum;
  }

 private:
  static constexpr double kWeight = 1000;  ///< the paper's β = 10³ (RepDistiller's too); a mean over pixels is small
};

const RegisterFeatureLoss kAttentionTransfer{
    "at", {[](const auto&, std::uint64_t) -> std::unique_ptr<FeatureLoss> { return std::make_unique<AttentionTransfer>(); }}};

}  // namespace
}  // namespace preceptor::distill
