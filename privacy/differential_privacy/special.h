#pragma once

namespace preceptor::privacy {

/// Functions of the accountants that std has not, in logarithms so that nothing under- or
/// overflows.
double log_erfc(double x);                ///< log of the complementary error function
double log_add(double a, double b);       ///< log(e^a + e^b); either may be -infinity
double log_sub(double a, double b);       ///< log(e^a - e^b); -infinity where b ≥ a
double log_expm1(double x);               ///< log(e^x - 1), x ≥ 0
double log_binomial(double n, double k);  ///< 0 ≤ k ≤ n
double normal_cdf(double x);              ///< of the standard normal distribution

}  // namespace preceptor::privacy
