#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

namespace preceptor::models {

/// What a network makes of a batch on its way to the logits, for losses that compare two networks inside.
struct Features {
  std::vector<at::Tensor> maps;  ///< each [B, C, H, W], as the stages end, shallow to deep
  at::Tensor pooled;             ///< [B, D], what the classifier reads; undefined for segmentation

  /// [B, D]: `pooled`; where the network has no such thing, the mean over the pixels of its coarsest map.
  at::Tensor embedding() const {
    if (pooled.defined()) return pooled;
    const auto pixels = [](const at::Tensor& map) { return map.size(2) * map.size(3); };
    return std::ranges::min_element(maps, {}, pixels)->mean({2, 3});
  }
};

/// A scope in which the taps of the networks that this thread runs are recorded; scopes nest, and the innermost
/// listens. Not copied; lives on the stack.
class FeatureTaps {
 public:
  FeatureTaps() : outer_(innermost_) { innermost_ = this; }
  ~FeatureTaps() { innermost_ = outer_; }
  FeatureTaps(const FeatureTaps&) = delete;
  FeatureTaps& operator=(const FeatureTaps&) = delete;

  /// This thread's innermost scope, or null.
  static FeatureTaps* active() { return innermost_; }
  /// A map [B, C, H, W] or the pooled embedding [B, D].
  void record(const at::Tensor& x) {
    if (x.dim() == 4) features_.maps.push_back(x);
    else features_.pooled = x;
  }
  Features take() { return std::move(features_); }

 private:
  static inline constinit thread_local FeatureTaps* innermost_ = nullptr;
  FeatureTaps* outer_;
  Features features_;
};

/// x itself, seen by who listens: a map [B, C, H, W] at the end of a stage, or the pooled embedding [B, D]. Otherwise
/// the cost of one thread-local test.
inline at::Tensor tap(at::Tensor x) {
  if (auto* taps = FeatureTaps::active()) taps->record(x);
  return x;
}

/// The same of tokens, [B, H, W, C], or [B, extra + S², C] with `extra` tokens before those of the image; recorded as maps.
inline at::Tensor tap_tokens(at::Tensor x, std::int64_t extra = 0) {
  auto* taps = FeatureTaps::active();
  if (!taps) return x;
  if (x.dim() == 4) {
    taps->record(x.permute({0, 3, 1, 2}));
  } else {
    const auto count = x.size(1) - extra, side = std::int64_t(std::lround(std::sqrt(double(count))));
    taps->record(x.narrow(1, extra, count).transpose(1, 2).view({x.size(0), x.size(2), side, side}));
  }
  return x;
}

/// chain(x) for a torch::nn::Sequential, tapping what comes out of its children number `ends`; with none given, of each.
template <class Sequential, class Tap = at::Tensor (*)(at::Tensor)>
at::Tensor tap_children(Sequential& chain, at::Tensor x, std::initializer_list<std::size_t> ends = {}, Tap tap_one = tap) {
  std::size_t i = 0;
  for (auto& child : chain) {
    x = child.forward(x);
    if (ends.size() == 0 || std::ranges::find(ends, i) != ends.end()) tap_one(x);
    ++i;
  }
  return x;
}

/// What `forward` gives, and what the networks that it ran have tapped.
template <class Forward>
std::pair<at::Tensor, Features> with_features(Forward forward) {
  FeatureTaps taps;
  auto output = forward();
  return {std::move(output), taps.take()};
}

}  // namespace preceptor::models
