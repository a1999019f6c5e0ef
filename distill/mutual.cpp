#include "distill/mutual.h"

#include <torch/torch.h>

#include "distill/loss.h"
#include "training/optimizer.h"

namespace preceptor::distill {
namespace {

/// What a network tells others: of two heads their mean, as in evaluation.
at::Tensor told(const at::Tensor& logits) {
  return training::two_headed(logits) ? logits.mean(1).detach() : logits.detach();
}

class MutualObjective : public training::Objective {
 public:
  MutualObjective(const MutualOptions& options, std::unique_ptr<training::Objective> own, std::span<models::FlatModel> peers,
                  const data::Dataset& dataset, const training::TrainingOptions& training)
      : options_(options), own_(std::move(own)), hard_(training::make_supervised(training, dataset)), clip_norm_(training.clip_norm) {
    for (auto& model : peers) {
      model.network().train();
      peers_.push_back({&model, training::make_optimizer(training, model.space(), model.values())});
    }
  }

  at::Tensor loss(const training::Batch& batch, const at::Tensor& logits) override { return loss_with(batch, logits, {}); }

  /// Leaves in each peer the gradient of its own loss on the way, for `step`.
  at::Tensor loss_with(const training::Batch& batch, const at::Tensor& logits, const models::Features& features) override {
    std::vector<at::Tensor> outputs, all_told{told(logits)};
    for (const auto& peer : peers_) {
      outputs.push_back(peer.model->forward(batch.images));
      all_told.push_back(told(outputs.back()));
    }
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      peers_[i].model->gradients().zero_();
      (hard_->loss(batch, outputs[i]) + pull(outputs[i], all_told, i + 1)).backward();
    }
    return own_->loss_with(batch, logits, features) + pull(logits, all_told, 0);
  }

  bool by_image() const override { return false; }
  void step(double learning_rate) override {
    torch::NoGradGuard no_grad;
    for (auto& [model, optimizer] : peers_) {
      training::clip(model->gradients(), clip_norm_);
      optimizer->step(model->values(), model->gradients(), learning_rate);
    }
    own_->step(learning_rate);
  }

 private:
  /// Of the network number `self` towards all the others; with two heads, by that for a teacher.
  at::Tensor pull(const at::Tensor& logits, const std::vector<at::Tensor>& all_told, std::size_t self) const {
    const auto listening = training::two_headed(logits) ? logits.select(1, 1) : logits;
    auto sum = torch::zeros({}, listening.options());
    for (std::size_t i = 0; i < all_told.size(); ++i)
      if (i != self) sum = sum + soft_target(listening, all_told[i], options_.temperature);
    return sum * (options_.weight / double(all_told.size() - 1));
  }

  struct Peer {
    models::FlatModel* model;
    std::unique_ptr<training::Optimizer> optimizer;
  };
  MutualOptions options_;
  std::unique_ptr<training::Objective> own_, hard_;
  double clip_norm_;
  std::vector<Peer> peers_;
};

}  // namespace

Result<std::vector<models::FlatModel>> make_peers(const MutualOptions& options, const data::Dataset& dataset,
                                                  const std::string& device, std::uint64_t seed) {
  std::vector<models::FlatModel> peers;
  for (std::size_t i = 0; i < options.peers.size(); ++i) {
    const auto spec = training::spec_for(options.peers[i], dataset);
    auto peer = spec ? models::FlatModel::create(*spec, device) : std::unexpected(spec.error());
    if (!peer) return in(fmt::format("mutual.peers[{}]", i), peer.error());
    peer->initialise(RandomStream(seed, "peer/init", {i}));
    peers.push_back(std::move(*peer));
  }
  return peers;
}

std::unique_ptr<training::Objective> make_mutual(const MutualOptions& options, std::unique_ptr<training::Objective> own,
                                                 std::span<models::FlatModel> peers, const data::Dataset& dataset,
                                                 const training::TrainingOptions& training) {
  return std::make_unique<MutualObjective>(options, std::move(own), peers, dataset, training);
}

}  // namespace preceptor::distill
