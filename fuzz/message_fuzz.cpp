#include <cstdlib>

#include "fuzz/fuzz.h"
#include "tests/support/messages.h"

using namespace preceptor;

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto& message : test::one_message_of_each_kind()) {
    const auto bytes = transport::encode_message(message);
    const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
    all.emplace_back(first, first + bytes.size());
  }
  return all;
}

/// What decodes must encode to the very bytes it came from: the layout has one form a value.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  const auto message = transport::decode_message(input);
  if (message && !std::ranges::equal(transport::encode_message(*message), input)) std::abort();
  return 0;
}
