#include <cstdlib>

#include "fuzz/fuzz.h"
#include "privacy/secure_aggregation/identity.h"
#include "privacy/secure_aggregation/messages.h"
#include "privacy/secure_aggregation/shamir.h"

using namespace preceptor;
using namespace preceptor::privacy;

std::vector<std::vector<std::uint8_t>> seeds() {
  const auto digest = sha256("a session");
  SessionContext context;
  context.job = "job";
  context.vectors = {{"update", 100, 20}, {"totals", 3, 64}};
  context.members = {"hospital-1", "hospital-2", "hospital-3"};
  const auto advertisement = [] {
    return Advertisement{Bytes(32, std::byte{1}), Bytes(65, std::byte{2}), sha256("seed"), Bytes(300, std::byte{3}), Bytes(64, std::byte{4})};
  };
  std::vector<SecureMessage> messages;
  messages.emplace_back(Invitation{context});
  messages.emplace_back(advertisement());
  messages.emplace_back(Roll{{{1, advertisement()}, {2, advertisement()}}});
  messages.emplace_back(Shares{{{1, Bytes(kSealedShares, std::byte{5})}, {3, Bytes(kSealedShares, std::byte{6})}}});
  messages.emplace_back(Survivors{{1, 2, 3}, {4}});
  messages.emplace_back(Confirmation{true, Bytes(64, std::byte{7})});
  messages.emplace_back(Confirmations{{{1, {false, Bytes(64, std::byte{8})}}, {2, {true, Bytes(70, std::byte{9})}}}});
  Unmask unmask;
  unmask.entries.push_back({1, ShareKind::kSeed, Secret<32>::of(digest)});
  unmask.entries.push_back({2, ShareKind::kMaskKey, Secret<32>::of(digest)});
  messages.emplace_back(std::move(unmask));
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto& message : messages) {
    const auto bytes = encode(digest, message);
    const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
    all.emplace_back(first, first + bytes.size());
  }
  return all;
}

/// What decodes must encode to the very bytes it came from, and shares from outside combine or are refused.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  if (const auto envelope = decode_envelope(input)) {
    if (!std::ranges::equal(encode(envelope->session, envelope->message), input)) std::abort();
    if (const auto* invitation = std::get_if<Invitation>(&envelope->message)) {
      if (const auto checked = check(invitation->context); checked && invitation->context.size() < 3) std::abort();
    }
  }
  std::vector<Share> shares;
  for (std::size_t at = 1; at + 33 <= size && shares.size() < 40; at += 33)
    shares.push_back({data[at], Secret<32>::of(input.subspan(at + 1, 32))});
  if (size > 0) {
    const int t = data[0] % 12;
    if (const auto secret = combine_shares(shares, t); secret && (t < 2 || shares.size() < std::size_t(t))) std::abort();
  }
  return 0;
}
