#include <torch/torch.h>

#include "distill/feature_loss.h"

namespace preceptor::distill {
namespace {

/// How the images of a batch stand to each other, from their embeddings [B, D].
struct Relations {
  at::Tensor distances;  ///< [B, B] in units of their mean; the diagonal is 0
  at::Tensor angles;     ///< [B, B, B] cosines of the angle at image i between images j and k
};

Relations relations(const at::Tensor& embedding) {
  const auto batch = embedding.size(0);
  const auto to = embedding.unsqueeze(0) - embedding.unsqueeze(1);  // [i, j]: from i to j
  const auto length = to.square().sum(2).clamp_min(1e-12).sqrt();
  const auto distances = length * (1 - torch::eye(batch, embedding.options()));
  const auto unit = to / length.unsqueeze(2);
  return {distances / (distances.sum() / double(batch * (batch - 1))), unit.bmm(unit.transpose(1, 2))};
}

/// Relational knowledge distillation (Park 2019, arXiv:1904.05068): 25 · smooth L1 between distances + 50 · smooth L1 between
/// angles of the embeddings, each a mean. Student and teacher may have embeddings of any size. Memory grows with B² · (B + D).
class Rkd : public FeatureLoss {
 public:
  at::Tensor loss(const models::Features& student, const models::Features& teacher) override {
    const auto s = relations(student.embedding()), t = relations(teacher.embedding());
    return kDistance * torch::smooth_l1_loss(s.distances, t.distances) + kAngle * torch::smooth_l1_loss(s.angles, t.angles);
  }

 private:
  static constexpr double kDistance = 25, kAngle = 50;  ///< the paper's
};

const RegisterFeatureLoss kRkd{
    "rkd", {[](const auto&, std::uint64_t) -> std::unique_ptr<FeatureLoss> { return std::make_unique<Rkd>(); }}};

}  // namespace
}  // namespace preceptor::distill
