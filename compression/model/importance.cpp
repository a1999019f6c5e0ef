#include "compression/model/importance.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

namespace preceptor::compression {
namespace {

using models::FlatModel;

/// Pieces by name, as tensors of a flat buffer.
class Pieces {
 public:
  Pieces(const ParameterSpace& space, const at::Tensor& flat) : flat_(flat.detach()) {
    for (const auto& piece : space.pieces()) pieces_[piece.name] = &piece;
  }
  Role role(const std::string& name) const { return pieces_.at(name)->role; }
  at::Tensor tensor(const std::string& name) const {
    const auto& piece = *pieces_.at(name);
    return flat_.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).view(piece.shape);
  }

 private:
  at::Tensor flat_;
  std::map<std::string, const Piece*> pieces_;
};

at::Tensor no_scores(const Group& group) { return torch::zeros({group.units}, torch::kFloat64); }

/// Squares of all weights and norm scales that go with a unit (DepGraph, Fang 2023, arXiv:2301.12900).
class GroupL2 : public Criterion {
 public:
  explicit GroupL2(FlatModel& model) : pieces_(model.space(), model.values()) {}
  at::Tensor scores(const Group& group) override {
    auto units = no_scores(group);
    for (const auto& slot : group.slots)
      if (const auto role = pieces_.role(slot.parameter); role == Role::kWeight || role == Role::kNormScale)
        add_by_unit(units, slot, sum_along(pieces_.tensor(slot.parameter).square(), slot.dim));
    return units;
  }

 protected:
  Pieces pieces_;
};

/// |γ| of the norms behind a unit (Network Slimming, Liu 2017, arXiv:1708.06519); of a group without a norm, GroupL2.
class NormScale : public GroupL2 {
 public:
  using GroupL2::GroupL2;
  at::Tensor scores(const Group& group) override {
    auto units = no_scores(group);
    bool any = false;
    for (const auto& slot : group.slots) {
      if (pieces_.role(slot.parameter) != Role::kNormScale) continue;
      any = true;
      add_by_unit(units, slot, sum_along(pieces_.tensor(slot.parameter).abs(), slot.dim));
    }
    return any ? units : GroupL2::scores(group);
  }
};

/// The distance of a unit's outgoing weights from all others', summed: those near the geometric median can be told by the
/// rest (FPGM, He 2018, arXiv:1811.00250).
class GeometricMedian : public GroupL2 {
 public:
  using GroupL2::GroupL2;
  at::Tensor scores(const Group& group) override {
    std::vector<at::Tensor> parts;
    for (const auto& slot : group.slots)
      if (slot.dim == 0 && pieces_.role(slot.parameter) == Role::kWeight) parts.push_back(of_units(group, slot));
    if (parts.empty()) return GroupL2::scores(group);
    const auto filters = torch::cat(parts, 1);
    return torch::cdist(filters, filters).sum(1);
  }

 private:
  /// [units, values]; a unit of several elements has theirs one after the other, zeros where others have more.
  at::Tensor of_units(const Group& group, const Slot& slot) const {
    const auto rows = pieces_.tensor(slot.parameter).flatten(1).to(torch::kCPU, torch::kFloat64);
    std::vector<at::Tensor> units;
    for (std::int64_t u = 0; u < group.units; ++u) units.push_back(rows.index_select(0, slot.unit.eq(u).nonzero().squeeze(1)).flatten());
    return torch::nn::utils::rnn::pad_sequence(units, /*batch_first=*/true);
  }
};

/// |gradient · weight|, over some batches: what the loss would change, to first order (Molchanov 2019, arXiv:1906.10771).
class Taylor : public Criterion {
 public:
  Taylor(FlatModel& model, at::Tensor saliency) : saliency_(std::move(saliency)), pieces_(model.space(), saliency_) {}
  at::Tensor scores(const Group& group) override {
    auto units = no_scores(group);
    for (const auto& slot : group.slots) add_by_unit(units, slot, sum_along(pieces_.tensor(slot.parameter), slot.dim));
    return units;
  }

 private:
  at::Tensor saliency_;
  Pieces pieces_;
};

Result<std::unique_ptr<Criterion>> make_taylor(FlatModel& model, const Evidence& evidence) {
  if (!evidence.objective || !evidence.dataset || evidence.dataset->size() == 0)
    return fail(Code::kInvalid, "criterion taylor needs images; group_l2, bn_scale and fpgm do without");
  const bool training = model.network().is_training();
  model.network().eval();  // statistics stay as they are
  auto saliency = torch::zeros_like(model.values());
  std::vector<std::size_t> order(std::min(evidence.dataset->size(), std::size_t(evidence.batches) * std::size_t(evidence.batch)));
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t at = 0; at < order.size(); at += std::size_t(evidence.batch)) {
    const auto piece = std::span(order).subspan(at, std::min(std::size_t(evidence.batch), order.size() - at));
    const auto batch = training::make_batch(*evidence.dataset, piece);
    model.gradients().zero_();
    evidence.objective->loss(batch, model.forward(batch.images)).backward();
    torch::NoGradGuard no_grad;
    saliency += (model.gradients() * model.values()).abs();
  }
  model.gradients().zero_();
  model.network().train(training);
  return std::make_unique<Taylor>(model, saliency);
}

template <class Kind>
MakeCriterion of_values() {
  return [](FlatModel& model, const Evidence&) -> Result<std::unique_ptr<Criterion>> { return std::make_unique<Kind>(model); };
}

}  // namespace

Registry<MakeCriterion>& criteria() {
  static Registry<MakeCriterion> registry("pruning criterion");
  return registry;
}

void add_by_unit(at::Tensor& units, const Slot& slot, const at::Tensor& by_element) {
  const auto members = slot.unit.ge(0).nonzero().squeeze(1);
  units.index_add_(0, slot.unit.index_select(0, members), by_element.to(units.device()).index_select(0, members));
}

at::Tensor sum_along(const at::Tensor& tensor, std::int64_t dim) {
  return tensor.movedim(dim, 0).reshape({tensor.size(dim), -1}).sum(1, /*keepdim=*/false, torch::kFloat64);
}

namespace {

const RegisterCriterion kGroupL2{"group_l2", of_values<GroupL2>()};
const RegisterCriterion kNormScale{"bn_scale", of_values<NormScale>()};
const RegisterCriterion kGeometricMedian{"fpgm", of_values<GeometricMedian>()};
const RegisterCriterion kTaylor{"taylor", make_taylor};

}  // namespace

}  // namespace preceptor::compression
