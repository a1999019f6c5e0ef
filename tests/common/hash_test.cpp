#include "common/hash.h"

#include <gtest/gtest.h>

#include "common/bytes.h"

namespace preceptor {
namespace {

// NIST CSRC, examples of FIPS 180-4 and SHA256ShortMsg.rsp.
TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(sha256(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesHashAsTheWhole) {
  Sha256 pieces;
  pieces.update("a").update(bytes_of("")).update(bytes_of("bc"));
  Sha256 moved = std::move(pieces);
  EXPECT_EQ(moved.finish(), sha256("abc"));
}

TEST(Hex, WritesTwoLowerCaseDigitsAByte) {
  const std::byte bytes[] = {std::byte{0}, std::byte{0x0f}, std::byte{0xf0}, std::byte{0xab}};
  EXPECT_EQ(hex(bytes), "000ff0ab");
  EXPECT_EQ(hex({}), "");
}

}  // namespace
}  // namespace preceptor
