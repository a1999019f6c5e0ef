#include "privacy/secure_aggregation/shamir.h"

namespace preceptor::privacy {
namespace {

/// a^254; 0 for 0. Fixed chain of squarings and products.
std::uint8_t inverse(std::uint8_t a) {
  std::uint8_t result = 1, power = a;
  for (int bit = 1; bit < 8; ++bit) {
    power = gf256_multiply(power, power);
    result = gf256_multiply(result, power);
  }
  return result;
}

Result<void> check_points(std::span<const Share> shares) {
  std::array<bool, 256> seen{};
  for (const auto& share : shares) {
    if (share.x == 0) return fail(Code::kCorrupt, "a share at x = 0, where the secret lies");
    if (std::exchange(seen[share.x], true)) return fail(Code::kCorrupt, "two shares at x = {}", share.x);
  }
  return {};
}

}  // namespace

std::uint8_t gf256_multiply(std::uint8_t a, std::uint8_t b) {
  unsigned product = 0, x = a;
  for (int bit = 0; bit < 8; ++bit) {
    product ^= x & (0u - ((unsigned(b) >> bit) & 1u));
    x = (x << 1) ^ (0x11bu & (0u - (x >> 7)));
  }
  return std::uint8_t(product);
}

std::uint8_t gf256_evaluate(std::span<const std::uint8_t> coefficients, std::uint8_t x) {
  std::uint8_t y = 0;
  for (auto c = coefficients.rbegin(); c != coefficients.rend(); ++c) y = std::uint8_t(gf256_multiply(y, x) ^ *c);
  return y;
}

Result<std::vector<Share>> share_secret(const Secret<32>& secret, int t, int n) {
  if (t < 2 || t > n || n > 255) return fail(Code::kInvalid, "shares for {} of {}; 2 ≤ t ≤ n ≤ 255", t, n);
  std::vector<Secret<32>> coefficients;
  coefficients.push_back(secret.copy());
  for (int i = 1; i < t; ++i) coefficients.push_back(TRY(Secret<32>::random()));
  std::vector<Share> shares;
  shares.reserve(std::size_t(n));
  for (int x = 1; x <= n; ++x) {
    Share share{std::uint8_t(x), {}};
    for (auto c = coefficients.rbegin(); c != coefficients.rend(); ++c)
      for (std::size_t i = 0; i < 32; ++i) {
        const auto y = std::to_integer<std::uint8_t>(share.y.view()[i]);
        share.y.bytes()[i] = std::byte(gf256_multiply(y, std::uint8_t(x))) ^ c->view()[i];
      }
    shares.push_back(std::move(share));
  }
  return shares;
}

Secret<32> interpolate(std::span<const Share* const> shares, std::uint8_t x) {
  Secret<32> value;
  for (const auto* share : shares) {
    std::uint8_t numerator = 1, denominator = 1;  // Lagrange: Π (x - x_j) / (x_i - x_j), and - is ^
    for (const auto* other : shares) {
      if (other == share) continue;
      numerator = gf256_multiply(numerator, x ^ other->x);
      denominator = gf256_multiply(denominator, share->x ^ other->x);
    }
    const auto weight = gf256_multiply(numerator, inverse(denominator));
    for (std::size_t i = 0; i < 32; ++i)
      value.bytes()[i] ^= std::byte(gf256_multiply(weight, std::to_integer<std::uint8_t>(share->y.view()[i])));
  }
  return value;
}

Result<Secret<32>> combine_shares(std::span<const Share> shares, int t) {
  if (t < 2) return fail(Code::kInvalid, "a threshold of {}", t);
  if (shares.size() < std::size_t(t))
    return fail(Code::kUnavailable, "{} shares; {} are needed", shares.size(), t);
  if (auto checked = check_points(shares); !checked) return std::unexpected(checked.error());
  std::vector<const Share*> first;
  for (int i = 0; i < t; ++i) first.push_back(&shares[std::size_t(i)]);
  for (const auto& extra : shares.subspan(std::size_t(t)))
    if (!(interpolate(first, extra.x) == extra.y))
      return fail(Code::kCorrupt, "the share at x = {} disagrees with the others", extra.x);
  return interpolate(first, 0);
}

}  // namespace preceptor::privacy
