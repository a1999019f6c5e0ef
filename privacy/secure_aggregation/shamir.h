#pragma once
#include <vector>

#include "privacy/secure_aggregation/secret.h"

namespace preceptor::privacy {

/// Shamir's secret sharing (1979, doi:10.1145/359168.359176) byte by byte over GF(2^8) with
/// polynomial 0x11b. No tables and no branches on secrets. Sharing needs t ≥ 2; any t - 1 shares are
/// independent of the secret, so every coefficient, the top one too, is uniform over the field.
struct Share {
  std::uint8_t x = 0;  ///< holder, 1..255
  Secret<32> y;
};

/// Product in GF(2^8).
std::uint8_t gf256_multiply(std::uint8_t a, std::uint8_t b);

/// The polynomial's value at x, one byte; coefficients[0] is the secret. For the published vectors.
std::uint8_t gf256_evaluate(std::span<const std::uint8_t> coefficients, std::uint8_t x);

/// Shares for x = 1..n. Error: kInvalid, unless 2 ≤ t ≤ n ≤ 255.
Result<std::vector<Share>> share_secret(const Secret<32>& secret, int t, int n);

/// The secret of the first t shares, if all others lie on the same polynomials. Error: kCorrupt, for x = 0, an x
/// twice or a share that disagrees; kUnavailable for fewer than t.
Result<Secret<32>> combine_shares(std::span<const Share> shares, int t);

/// The value at x of the polynomials through `shares`, which all count; distinct, non-zero x.
Secret<32> interpolate(std::span<const Share* const> shares, std::uint8_t x);

}  // namespace preceptor::privacy
