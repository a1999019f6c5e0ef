// ModelDelta and SumStep, at a node: what comes from a coordinator. First byte: which step; the rest: its bytes.
#include <cmath>
#include <cstdlib>
#include <memory>

#include "compression/update/sum_step.h"
#include "fuzz/fuzz.h"

using namespace preceptor;
using namespace preceptor::compression;

namespace {

const ParameterSpace& space() {
  static const ParameterSpace kSpace = [] {
    ParameterSpace made;
    made.add("conv.weight", {8, 9, 3, 3}, Role::kWeight);
    made.add("base.weight", {10}, Role::kFrozen);
    made.add("norm.running_mean", {8}, Role::kNormMean);
    made.add("norm.running_var", {8}, Role::kNormVariance);
    made.add("fc.bias", {3}, Role::kBias);
    return made;
  }();
  return kSpace;
}

ModelDelta delta_of(int bits) { return ModelDelta::create({"delta", bits}, space()).value(); }
RingCodec ring() { return RingCodec::create({.bits = 6, .max_nodes = 5, .clip = 4}, space()).value(); }

const std::vector<std::unique_ptr<ModelStep>>& steps() {
  static const auto kAll = [] {
    std::vector<std::unique_ptr<ModelStep>> all;
    for (const int bits : {8, 4}) all.push_back(std::make_unique<ModelDelta>(delta_of(bits)));
    all.push_back(std::make_unique<SumStep>(ring(), 1, 0.5, space()));
    return all;
  }();
  return kAll;
}

std::vector<float> model(double phase) {
  std::vector<float> values(space().size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = float(1 + std::sin(phase + double(i * i)) / double(1 + i % 7));
  return values;
}

/// The published sum of three nodes that learnt the same.
Bytes published(double phase) {
  const auto codec = ring();
  auto change = model(phase);
  const auto from = model(0);
  for (std::size_t i = 0; i < change.size(); ++i) change[i] -= from[i];
  Totals totals;
  totals.weight = codec.weight_of(100);
  totals.fidelity.resize(codec.stages().size());
  ErrorFeedback none;
  const auto update = codec.pack({codec.encode(change, 100, {1, 1}, RandomStream(1, "rounding"), none).value(), totals.encode()});
  RingSum sum(codec);
  for (int node = 0; node < 3; ++node) sum.add(update);
  return sum.publish().value();
}

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  const auto add = [&](std::uint8_t which, const Bytes& bytes) {
    std::vector<std::uint8_t> seed{which};
    for (const auto b : bytes) seed.push_back(std::to_integer<std::uint8_t>(b));
    all.push_back(std::move(seed));
  };
  for (const double phase : {0.0, 0.1}) {
    add(0, delta_of(8).encode(model(0), model(phase), 1).value());
    add(1, delta_of(4).encode(model(0), model(phase), 1).value());
    add(2, published(phase));
  }
  return all;
}

/// Whatever came, what is frozen stays as it was; an accepted step leaves a model that can run,
/// and the same one each time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto& step = *steps()[data[0] % steps().size()];
  const auto bytes = std::as_bytes(std::span(data, size).subspan(1));
  const auto before = model(0);
  auto after = before, again = before;
  const auto done = step.apply(bytes, 1, after);
  if (step.apply(bytes, 1, again).has_value() != done.has_value() || model_hash(after) != model_hash(again)) std::abort();
  for (const auto& piece : space().pieces())
    for (auto i = piece.offset; i < piece.offset + piece.size; ++i) {
      if (is_frozen(piece.role) && after[i] != before[i]) std::abort();
      if (done && !std::isfinite(after[i])) std::abort();
      if (done && piece.role == Role::kNormVariance && after[i] < 0) std::abort();
    }
  return 0;
}
