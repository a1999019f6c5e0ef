// ModelDelta::apply, at a node: what comes from a coordinator. First byte: which codec; the rest: a
// coded change of the model.
#include <cmath>
#include <cstdlib>

#include "compression/update/downlink.h"
#include "fuzz/fuzz.h"

using namespace preceptor;
using compression::ModelDelta;

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

const std::vector<ModelDelta>& codecs() {
  static const std::vector<ModelDelta> kAll = [] {
    std::vector<ModelDelta> all;
    for (const int bits : {8, 4})
      all.push_back(ModelDelta::create({"delta", bits}, space()).value());
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

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::size_t i = 0; i < codecs().size(); ++i)
    for (const double phase : {0.0, 0.1}) {
      const auto delta = codecs()[i].encode(model(0), model(phase), 1).value();
      std::vector<std::uint8_t> seed{std::uint8_t(i)};
      for (const auto b : delta) seed.push_back(std::to_integer<std::uint8_t>(b));
      all.push_back(std::move(seed));
    }
  return all;
}

/// Whatever came, what is frozen stays as it was; an accepted change leaves a model that can run,
/// and the same one each time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto& codec = codecs()[data[0] % codecs().size()];
  const auto delta = std::as_bytes(std::span(data, size).subspan(1));
  const auto before = model(0);
  auto after = before, again = before;
  const auto done = codec.apply(delta, after);
  if (codec.apply(delta, again).has_value() != done.has_value() ||
      model_hash(after) != model_hash(again))
    std::abort();
  for (const auto& piece : space().pieces())
    for (auto i = piece.offset; i < piece.offset + piece.size; ++i) {
      if (is_frozen(piece.role) && after[i] != before[i]) std::abort();
      if (done && piece.role == Role::kNormVariance && after[i] < 0) std::abort();
    }
  return 0;
}
