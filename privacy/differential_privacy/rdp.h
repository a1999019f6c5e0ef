#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace preceptor::privacy {

/// Rényi differential privacy (Mironov 2017, arXiv:1702.07476): a curve ε(α), one value an order.
/// Curves of mechanisms on the same data add. Unit: one record (or one hospital) added or removed.
/// All functions are pure. Arguments out of range are bugs of the caller: std::invalid_argument.

/// 1.1, 1.2 … 10.9, 12, 13 … 63.
const std::vector<double>& default_orders();

/// ε(order) of one step of the Gaussian mechanism on a Poisson sample: each record takes part with
/// probability sampling_rate, 0 < q ≤ 1; noise of deviation noise_multiplier × clip, σ > 0. Any
/// order > 1, by the series of Mironov, Talwar and Zhang 2019 (arXiv:1908.10530, §3.3), in
/// logarithms.
double sampled_gaussian_rdp(double sampling_rate, double noise_multiplier, double order);

/// What an integer mechanism adds to a vector of integers; all in units of the last place.
struct IntegerNoise {
  double deviation = 1;      ///< of one share
  std::uint32_t shares = 1;  ///< independent shares in the sum, as many as are sure to be there
  double l2 = 1;             ///< L2 sensitivity of the integer vector
  double l1 = 1;             ///< L1 sensitivity
  double dimension = 1;      ///< elements
};
/// A sum of discrete Gaussian shares (Kairouz, Liu and Steinke 2021, arXiv:2102.06387, eq. 17). One
/// share: zero-concentrated privacy with ρ = l2² / 2σ² (Canonne, Kamath, Steinke,
/// arXiv:2004.00010).
double discrete_gaussian_rdp(const IntegerNoise& noise, double order);
/// A sum of Skellam shares, itself Skellam (Agarwal, Kairouz and Liu 2021, arXiv:2110.04995,
/// thm 3.5). The theorem is for whole orders; others take the next whole one, which is larger.
double skellam_rdp(const IntegerNoise& noise, double order);

/// Norms after stochastic rounding to integers that is repeated until the L2 norm keeps the bound;
/// a try fails with probability at most beta, 0 < beta < 1 (arXiv:2102.06387, thm 1, prop. 22).
double rounded_l2_bound(double l2, double dimension, double beta);
double rounded_l1_bound(double rounded_l2, double dimension);

/// Any mechanism on a Poisson sample (Zhu and Wang 2019, thm 5): `rdp` is its curve without
/// sampling. Whole orders; others take the next whole one. Never more than rdp(order) itself.
double amplified_rdp(double sampling_rate, const std::function<double(double)>& rdp, double order);

struct RdpEpsilon {
  double epsilon = 0;
  double order = 0;  ///< at which the bound is smallest
};
/// The smallest ε of (ε, delta)-privacy over the orders (Canonne, Kamath and Steinke 2020, prop.
/// 12; Balle et al. 2020, arXiv:1905.09982, thm 21). curve and orders have the same length.
RdpEpsilon rdp_to_epsilon(std::span<const double> orders, std::span<const double> curve,
                          double delta);

}  // namespace preceptor::privacy
