#pragma once
#include <cstdint>
#include <vector>

#include "privacy/differential_privacy/pld.h"

namespace preceptor::privacy {

/// Masses of one step's privacy loss at (first + i) · step of the grid.
struct LossMasses {
  std::int64_t first = 0;
  std::vector<double> masses;
  double infinite = 0;  ///< mass of an unbounded loss: the tails that were cut
};

/// The privacy loss of one step of the sampled Gaussian, log p(x)/q(x) with x drawn from p. Noise
/// in units of the clip norm; p and q are N(0, σ²) and its mixture with N(1, σ²) at the sampling
/// rate.
class StepLoss {
 public:
  /// removed: p is the mixture (the record is there); else q is. tail: mass that may be cut, each
  /// side.
  StepLoss(const SampledGaussian& part, bool removed, double tail);
  double loss(double x) const;
  double least() const;  ///< within the tails
  double most() const;
  /// Every loss split between the two points around it such that its mass under p and under q
  /// stays.
  LossMasses on_grid(double step, double tail) const;

 private:
  double density(double x) const;  ///< of p, times √2π σ
  double inverse(double loss) const;
  void split_panel(LossMasses& out, double step, double a, double b, double loss_a,
                   double loss_b) const;
  void add_piece(LossMasses& out, double step, std::int64_t j, double from, double to) const;

  double q_, sigma_;
  bool removed_;
  double low_ = 0, high_ = 0;  ///< of x
};

}  // namespace preceptor::privacy
