#include <algorithm>
#include <cstdlib>

#include "fuzz/fuzz.h"
#include "tests/support/messages.h"
#include "transport/frame.h"

using namespace preceptor;

namespace {

/// Payloads in order, then the refusal if there was one.
std::vector<std::string> outcome(std::span<const std::byte> bytes, std::size_t piece) {
  transport::FrameDecoder decoder;
  std::vector<std::string> all;
  while (!bytes.empty()) {
    auto part = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(part.size());
    while (!part.empty()) {
      auto frame = decoder.next(part);
      if (!frame) return all.push_back(frame.error().message), all;
      if (!*frame) continue;
      (void)transport::message_of(**frame);
      all.push_back(hex(sha256((*frame)->payload)));
    }
  }
  return all;
}

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all(1);
  std::uint64_t sequence = 0;
  for (const auto& message : test::one_message_of_each_kind()) {
    for (const auto& bytes : {transport::encode_frame(message, sequence),
                              transport::encode_frame(transport::FrameType::kPing, sequence + 1)}) {
      const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
      all[0].insert(all[0].end(), first, first + bytes.size());
    }
    sequence += 2;
    const auto alone = transport::encode_frame(message, 0);
    const auto* first = reinterpret_cast<const std::uint8_t*>(alone.data());
    all.emplace_back(first, first + alone.size());
  }
  return all;
}

/// However the bytes are cut, the frames and the refusal are the same.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  if (outcome(input, SIZE_MAX) != outcome(input, 1 + size % 61)) std::abort();
  return 0;
}
