#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace preceptor::privacy {

/// `steps` steps of the Gaussian mechanism on Poisson samples (see sampled_gaussian_rdp).
struct SampledGaussian {
  double sampling_rate = 1;
  double noise_multiplier = 1;
  std::uint64_t steps = 1;
};

/// Privacy loss distribution of many steps, composed by fast Fourier transform (Koskela et al.
/// 2020, arXiv:1906.03049), on a grid by "connect the dots" (Doroshenko et al. 2022,
/// arXiv:2207.04380): each loss is split between the grid points around it such that its mass under
/// both neighbouring data sets stays, which can only make ε larger. Both adjacencies (a record
/// added, a record removed) are composed, the worse one counts.
///
/// Error: never below the true δ by more than 1e-10 (the transform's rounding; cut tails, 1e-14,
/// are added), hence δ ≥ kSmallestDelta only. Above it by the grid: halving its step moves ε by
/// less than 1e-4 of it in the tests' table.
class PrivacyLoss {
 public:
  static constexpr double kSmallestDelta = 1e-9;
  /// 0.2 s for one kind of step, about as much for each further kind. `step` of the grid, in nats:
  /// the finest that fits 2^19 points and is no finer than this.
  explicit PrivacyLoss(std::span<const SampledGaussian> parts, double step = 1e-6);
  double delta(double epsilon) const;  ///< smallest δ at this ε ≥ 0
  double epsilon(double delta) const;  ///< smallest ε ≥ 0 at this δ ≥ kSmallestDelta

 private:
  struct Composed {
    double low = 0;              ///< loss of the first point
    double step = 0;             ///< between points
    double infinite = 0;         ///< mass of an unbounded loss
    std::vector<double> masses;  ///< under the first of the two data sets
  };
  static Composed compose(std::span<const SampledGaussian> parts, bool removed, double step);
  static double delta(const Composed& composed, double epsilon);
  static double epsilon(const Composed& composed, double delta);
  Composed removed_, added_;
};

}  // namespace preceptor::privacy
