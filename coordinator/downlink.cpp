#include "coordinator/downlink.h"

#include <numeric>

#include "common/random.h"

namespace preceptor::coordinator {
namespace {

std::span<const float> floats_of(const Bytes& bytes) {
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}
std::span<float> floats_of(Bytes& bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace

Downlink::Downlink(const compression::ModelDelta* delta, std::uint64_t seed, transport::BlobShelf& shelf, transport::Blob initial)
    : delta_(delta), seed_(seed), shelf_(shelf) {
  if (delta_) exact_ = *initial;
  replace(std::move(initial));
}

std::span<float> Downlink::exact() {
  if (!delta_) exact_ = *model_;
  return floats_of(exact_);
}

void Downlink::replace(transport::Blob model) {
  if (model_) shelf_.drop(digest_);
  model_ = std::move(model);
  digest_ = shelf_.put(model_);
}

/// A patch from the model that is about to be replaced.
void Downlink::keep(std::uint32_t round, Bytes patch) {
  auto blob = std::make_shared<const Bytes>(std::move(patch));
  const auto size = blob->size();
  patches_.push_back({digest_, shelf_.put(std::move(blob)), size, round});
}

void Downlink::publish(std::uint32_t round, std::optional<Bytes> sum) {
  auto next = std::make_shared<Bytes>(delta_ ? *model_ : std::exchange(exact_, {}));
  if (delta_) {
    // The exact model's values are finite: a round's sum is judged before it is applied.
    auto bytes = delta_->encode(floats_of(*model_), floats_of(exact_), RandomStream(seed_, "downlink", {round}).bits64()).value();
    if (const auto applied = delta_->apply(bytes, round, floats_of(*next)); !applied) throw std::logic_error("a delta of our own: " + applied.error().message);
    keep(round, std::move(bytes));
  } else if (sum) {
    keep(round, std::move(*sum));
  }
  replace(std::move(next));
  forget_old();
}

void Downlink::forget_old() {
  const auto together = [&] {
    return std::accumulate(patches_.begin(), patches_.end(), std::uint64_t{0}, [](auto sum, const auto& patch) { return sum + patch.bytes; });
  };
  const std::size_t fewest = delta_ ? 0 : 1;  // without the newest sum nobody could make the newest model
  while (patches_.size() > fewest && (patches_.size() > kHistory || together() >= model_->size())) {
    shelf_.drop(patches_.front().delta);
    patches_.pop_front();
  }
}

}  // namespace preceptor::coordinator
