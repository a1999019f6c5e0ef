#include <torch/torch.h>

#include <cmath>

#include "common/random.h"
#include "distill/feature_loss.h"
#include "training/optimizer.h"

namespace preceptor::distill {
namespace {

/// Hints (FitNets; Romero 2015, arXiv:1412.6550): 100 · mean square of r(student) − teacher, of the middle one of the paired
/// stages. r is a 1×1 convolution from the student's channels to the teacher's, thrown away after training; it moves by the
/// student's own optimiser and options. One stage of training, not two as in the paper.
class FitNet : public FeatureLoss {
 public:
  FitNet(const training::TrainingOptions& options, std::uint64_t seed) : options_(options), seed_(seed) {}

  at::Tensor loss(const models::Features& student, const models::Features& teacher) override {
    const auto pairs = paired_maps(student, teacher);
    const auto& [guided, hint] = pairs[pairs.size() / 2];
    const auto in = guided.size(1), out = hint.size(1);
    if (!values_.defined()) create(in, out, guided.device());  // the channels show only now
    return kWeight * (torch::conv2d(guided, values_.view({out, in, 1, 1})) - hint).square().mean();
  }

  void step(double learning_rate) override {
    torch::NoGradGuard no_grad;
    training::clip(values_.mutable_grad(), options_.clip_norm);
    optimizer_->step(values_, values_.grad(), learning_rate);
    values_.mutable_grad().zero_();
  }

 private:
  /// N(0, 1 / in): the regressor's outputs are at first as large as its inputs.
  void create(std::int64_t in, std::int64_t out, torch::Device device) {
    std::vector<float> values(std::size_t(in * out));
    RandomStream random(seed_, "fitnet/init");
    for (auto& value : values) value = float(random.normal() / std::sqrt(double(in)));
    values_ = torch::tensor(values).to(device).requires_grad_();
    ParameterSpace space;
    space.add("regressor.weight", {out, in, 1, 1}, Role::kWeight);
    optimizer_ = training::make_optimizer(options_, space, values_.detach());
  }

  static constexpr double kWeight = 100;  ///< RepDistiller's and mdistiller's
  training::TrainingOptions options_;
  std::uint64_t seed_;
  at::Tensor values_;  ///< [out · in], the regressor
  std::unique_ptr<training::Optimizer> optimizer_;
};

const RegisterFeatureLoss kFitNet{"fitnet",
                                  {[](const training::TrainingOptions& options, std::uint64_t seed) -> std::unique_ptr<FeatureLoss> {
                                     return std::make_unique<FitNet>(options, seed);
                                   },
                                   /*learns=*/true}};

}  // namespace
}  // namespace preceptor::distill
