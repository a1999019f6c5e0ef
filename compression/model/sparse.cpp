#include "compression/model/sparse.h"

#include <torch/torch.h>

#include <charconv>
#include <cmath>

#include "compression/model/importance.h"

namespace preceptor::compression {
namespace {

bool is_weight(const Piece& piece) { return piece.role == Role::kWeight && piece.shape.size() >= 2; }

at::Tensor part(at::Tensor& flat, const Piece& piece) {
  return flat.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).view(piece.shape);
}

/// Zeros the `count` smallest.
void mask_smallest(const at::Tensor& weight, std::int64_t count) {
  if (count <= 0) return;
  const auto flat = weight.view({-1});
  flat.index_fill_(0, std::get<1>(flat.abs().topk(count, 0, /*largest=*/false, /*sorted=*/false)), 0);
}

/// In each row, blocks of m from its start; what is left over stays. Of blocks, the share whose loss is smallest.
void mask_blocks(const at::Tensor& weight, std::int64_t n, std::int64_t m, double share) {
  const auto rows = weight.view({weight.size(0), -1});
  const auto a_row = rows.size(1) / m;
  if (a_row == 0) return;
  const auto blocks = rows.narrow(1, 0, a_row * m).reshape({-1, m});
  const auto gone = std::get<1>(blocks.abs().topk(m - n, 1, /*largest=*/false));
  const auto loss = blocks.abs().gather(1, gone).sum(1);
  const auto count = std::llround(share * double(blocks.size(0)));
  const auto chosen = std::get<1>(loss.topk(count, 0, /*largest=*/false, /*sorted=*/false));
  const auto masked = blocks.index_copy(0, chosen, blocks.index_select(0, chosen).scatter(1, gone.index_select(0, chosen), 0));
  rows.narrow(1, 0, a_row * m).copy_(masked.view({rows.size(0), -1}));
}

}  // namespace

void GroupSparsity::before_step(models::FlatModel& model, double /*progress*/) {
  std::map<std::string, const Piece*> pieces;
  for (const auto& piece : model.space().pieces()) pieces[piece.name] = &piece;
  for (const auto& group : groups_) {
    auto squares = torch::zeros({group.units}, torch::kFloat64);
    std::vector<const Slot*> slots;
    for (const auto& slot : group.slots) {
      const auto& piece = *pieces.at(slot.parameter);
      if (piece.role != Role::kWeight && piece.role != Role::kNormScale) continue;
      slots.push_back(&slot);
      add_by_unit(squares, slot, sum_along(part(model.values(), piece).square(), slot.dim));
    }
    const auto most = squares.max(), spread = (most - squares.min()).clamp_min(1e-12);
    const auto of_units = options_.strength * torch::pow(2.0, options_.alpha * (most - squares) / spread);
    const auto pull = torch::cat({of_units, torch::zeros({1}, torch::kFloat64)}).to(torch::kFloat32);  // 0: no unit
    for (const auto* slot : slots) {
      const auto& piece = *pieces.at(slot->parameter);
      const auto of_slot = pull.index_select(0, torch::where(slot->unit < 0, group.units, slot->unit)).to(model.device());
      std::vector<std::int64_t> shape(piece.shape.size(), 1);
      shape[std::size_t(slot->dim)] = -1;
      part(model.gradients(), piece).addcmul_(part(model.values(), piece), of_slot.view(shape));
    }
  }
}

Result<WeightMask> WeightMask::create(const MaskOptions& options) {
  if (options.pattern == "unstructured") return WeightMask(options, 0, 0);
  std::int64_t n = 0, m = 0;
  const auto* end = options.pattern.data() + options.pattern.size();
  const auto first = std::from_chars(options.pattern.data(), end, n);
  const bool colon = first.ec == std::errc() && first.ptr != end && *first.ptr == ':';
  const auto second = colon ? std::from_chars(first.ptr + 1, end, m) : first;
  if (!colon || second.ec != std::errc() || second.ptr != end || n < 1 || n >= m || m > 64)
    return fail(Code::kInvalid, "pattern: 'unstructured' or N:M such as 2:4, with 0 < N < M <= 64, not '{}'", options.pattern);
  return WeightMask(options, n, m);
}

void WeightMask::apply(models::FlatModel& model, double progress) const {
  torch::NoGradGuard no_grad;
  const double done = options_.ramp > 0 ? std::min(progress / options_.ramp, 1.0) : 1;
  const double share = 1 - std::pow(1 - done, 3);  // of the final sparsity
  for (const auto& piece : model.space().pieces()) {
    if (!is_weight(piece)) continue;
    const auto weight = part(model.values(), piece);
    if (m_ > 0) mask_blocks(weight, n_, m_, share);
    else mask_smallest(weight, std::llround(share * options_.sparsity * double(piece.size)));
  }
}

double zeros(models::FlatModel& model) {
  std::int64_t all = 0, none = 0;
  for (const auto& piece : model.space().pieces()) {
    if (!is_weight(piece)) continue;
    all += std::int64_t(piece.size);
    none += part(model.values(), piece).eq(0).sum().item<std::int64_t>();
  }
  return all == 0 ? 0 : double(none) / double(all);
}

}  // namespace preceptor::compression
