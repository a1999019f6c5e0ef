#pragma once
#include <chrono>
#include <string>

namespace preceptor {

/// A progress line on standard error: redrawn in place on a terminal, a log line every ten seconds
/// elsewhere, and nothing for work that is over in a second.
class Progress {
 public:
  explicit Progress(std::string title) : title_(std::move(title)) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// done in [0, 1]; detail is a few words, such as "epoch 3/10, loss 0.31".
  void update(double done, const std::string& detail);

 private:
  std::string title_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
  bool drawn_ = false;
};

}  // namespace preceptor
