#include <gtest/gtest.h>

#include "common/hash.h"
#include "privacy/secure_aggregation/aead.h"
#include "privacy/secure_aggregation/kdf.h"
#include "privacy/secure_aggregation/key_agreement.h"
#include "privacy/secure_aggregation/mask_set.h"
#include "privacy/secure_aggregation/signature.h"
#include "tests/privacy/secure_aggregation/vectors.h"

/// Published vectors of every primitive: RFCs 5869, 7748, 8032, 8439, NIST's GCM and CTR examples.
namespace preceptor::privacy {
namespace {

using test::unhex;

Secret<32> secret(std::string_view digits) { return Secret<32>::of(unhex(digits)); }
Secret<32> counting_key() {
  Bytes key(32);
  for (int i = 0; i < 32; ++i) key[std::size_t(i)] = std::byte(i);
  return Secret<32>::of(key);
}
EvpKey ed25519_private(std::string_view digits) {
  return EvpKey(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, raw(unhex(digits)), 32));
}
EvpKey ed25519_public(std::span<const std::byte> key) {
  return EvpKey(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw(key), key.size()));
}

TEST(Hkdf, MatchesRfc5869) {
  Bytes out(42);
  const auto key = Bytes(22, std::byte{0x0b});
  ASSERT_TRUE(hkdf(key, unhex("000102030405060708090a0b0c"), unhex("f0f1f2f3f4f5f6f7f8f9"), out));  // A.1
  EXPECT_EQ(hex(out), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  ASSERT_TRUE(hkdf(key, {}, {}, out));  // A.3
  EXPECT_EQ(hex(out), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(X25519, MatchesRfc7748) {
  // 5.2, first and thousandth iteration of k, u = X25519(k, u), k.
  const auto nine = unhex("0900000000000000000000000000000000000000000000000000000000000000");
  const auto first = AgreementKey::of(Suite::kX25519ChaCha20,
      secret("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"));
  const auto u = unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
  EXPECT_EQ(hex(first->agree(u)->view()), "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
  auto k = Secret<32>::of(nine);
  Bytes point = nine;
  for (int i = 0; i < 1000; ++i) {
    auto next = *AgreementKey::of(Suite::kX25519ChaCha20, k.copy())->agree(point);
    point.assign(k.view().begin(), k.view().end());
    k = std::move(next);
  }
  EXPECT_EQ(hex(k.view()), "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
  // 6.1
  const auto a = AgreementKey::of(Suite::kX25519ChaCha20,
      secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
  EXPECT_EQ(hex(a->public_key()), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  const auto b = unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  EXPECT_EQ(hex(a->agree(b)->view()), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
}

TEST(KeyAgreement, BothSidesAgreeAndAKeyComesBackFromItsPrivateBytes) {
  for (const auto suite : {Suite::kX25519ChaCha20, Suite::kP256Aes256}) {
    const auto a = AgreementKey::generate(suite), b = AgreementKey::generate(suite);
    EXPECT_TRUE(*a->agree(b->public_key()) == *b->agree(a->public_key()));
    EXPECT_EQ(AgreementKey::of(suite, a->secret().copy())->public_key(), a->public_key());
    EXPECT_EQ(a->public_key().size(), agreement_key_size(suite));
    EXPECT_FALSE(a->agree(Bytes(31)));
  }
}

TEST(ChaCha20, MatchesRfc8439) {
  // A.1 #1: zero key, block 0, as mask words.
  std::vector<std::uint32_t> words(4);
  ASSERT_TRUE(MaskStream::create(Suite::kX25519ChaCha20, Secret<32>{})->add(words));
  EXPECT_EQ(words, (std::vector<std::uint32_t>{0xade0b876, 0x903df1a0, 0xe56a5d40, 0x28bd8653}));
  // 2.8.2: the AEAD.
  std::string_view text = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                          "sunscreen would be it.";
  const auto key = secret("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
  Nonce nonce;
  std::ranges::copy(unhex("070000004041424344454647"), nonce.begin());
  const auto sealed = seal(Suite::kX25519ChaCha20, key, bytes_of(text), unhex("50515253c0c1c2c3c4c5c6c7"), nonce);
  EXPECT_EQ(hex(std::span(*sealed).last(16)), "1ae10b594f09e26a7e902ecbd0600691");
  EXPECT_EQ(*open(Suite::kX25519ChaCha20, key, *sealed, unhex("50515253c0c1c2c3c4c5c6c7"), nonce),
            Bytes(bytes_of(text).begin(), bytes_of(text).end()));
}

TEST(ChaCha20, ThirdBlockOfTheZeroKeyIsWhereSeekSaysItIs) {
  // RFC 8439 A.1 #2: zero key, block 1.
  std::vector<std::uint32_t> words(1);
  auto stream = *MaskStream::create(Suite::kX25519ChaCha20, Secret<32>{});
  ASSERT_TRUE(stream.seek(16, 4));
  ASSERT_TRUE(stream.add(words));
  EXPECT_EQ(words[0], 0xbee7079fu);  // 9f07e7be…
}

TEST(AesCtr, MatchesNistsZeroBlockAndCounts) {
  // AES-256 of the zero block under the zero key: SP 800-38A's cipher, GCM specification test case 13's H.
  Bytes first(16);
  ASSERT_TRUE(MaskStream::create(Suite::kP256Aes256, Secret<32>{})->keystream(first));
  EXPECT_EQ(hex(first), "dc95c078a2408989ad48a21492842087");
}

TEST(AesGcm, MatchesTheSpecificationsTestCases13And14) {  // McGrew and Viega, GCM, appendix B
  const auto empty = seal(Suite::kP256Aes256, Secret<32>{}, {}, {});
  EXPECT_EQ(hex(*empty), "530f8afbc74536b9a963b4f1c4cb738b");
  const auto block = seal(Suite::kP256Aes256, Secret<32>{}, Bytes(16), {});
  EXPECT_EQ(hex(*block), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
}

TEST(Ed25519, MatchesRfc8032) {
  struct { const char *key, *message, *signature; } const cases[] = {
      {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "",
       "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
      {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72",
       "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"}};
  for (const auto& [digits, message, signature] : cases) {
    const auto key = ed25519_private(digits);
    EXPECT_EQ(hex(*sign(key.get(), unhex(message))), signature);
    EXPECT_TRUE(verify(key.get(), unhex(message), unhex(signature)));
    EXPECT_FALSE(verify(key.get(), unhex("73"), unhex(signature)));
  }
}

TEST(Masks, AreTheSameHoweverTheVectorIsCut) {
  for (const auto suite : {Suite::kX25519ChaCha20, Suite::kP256Aes256}) {
    const auto key = counting_key();
    std::vector<std::uint32_t> whole(10'001), pieces(10'001);
    ASSERT_TRUE(MaskStream::create(suite, key)->add(whole));
    MaskSet set;
    ASSERT_TRUE(set.add(suite, key, false));
    for (const auto& [first, last] : {std::pair{7001, 10'001}, {0, 5}, {5, 4097}, {4097, 7001}})
      ASSERT_TRUE(set.fold(std::uint64_t(first), std::span(pieces).subspan(first, last - first), 32));
    EXPECT_EQ(whole, pieces);
    std::vector<std::uint64_t> wide(5000), again(5000);
    ASSERT_TRUE(MaskStream::create(suite, key)->add(wide));
    EXPECT_EQ(std::memcmp(wide.data(), whole.data(), 40'000), 0) << "u64 words are the same keystream";
    ASSERT_TRUE(MaskStream::create(suite, key)->subtract(std::span(wide)));
    EXPECT_EQ(wide, again);
  }
}

TEST(Masks, StayInTheirRing) {
  MaskSet on, off;
  const auto key = counting_key();
  ASSERT_TRUE(on.add(Suite::kX25519ChaCha20, key, false));
  ASSERT_TRUE(off.add(Suite::kX25519ChaCha20, key, true));
  std::vector<std::uint32_t> words(1000, 5);
  ASSERT_TRUE(on.fold(0, std::span(words), 12));
  EXPECT_TRUE(std::ranges::all_of(words, [](auto w) { return w < 4096; }));
  EXPECT_GT(std::ranges::count_if(words, [](auto w) { return w != 5; }), 900);
  ASSERT_TRUE(off.fold(0, std::span(words), 12));
  EXPECT_EQ(words, std::vector<std::uint32_t>(1000, 5));
}

TEST(Wycheproof, X25519) {
  const auto cases = test::wycheproof("x25519.txt");
  ASSERT_EQ(cases.size(), 518u);
  for (const auto& c : cases) {
    const auto key = AgreementKey::of(Suite::kX25519ChaCha20, Secret<32>::of(c.bytes(1)));
    const auto shared = key->agree(c.bytes(0));
    const bool zero = c.bytes(2) == Bytes(32);
    if (zero) {
      EXPECT_FALSE(shared) << c.id << ": a point of low order";
    } else {
      ASSERT_TRUE(shared) << c.id;
      EXPECT_EQ(hex(shared->view()), c.fields[2]) << c.id;
    }
  }
}

TEST(Wycheproof, EcdhOnP256) {
  const auto cases = test::wycheproof("ecdh_p256.txt");
  ASSERT_EQ(cases.size(), 216u);
  for (const auto& c : cases) {
    auto scalar = c.bytes(1);  // an integer of DER's width
    while (scalar.size() > 32) scalar.erase(scalar.begin());
    while (scalar.size() < 32) scalar.insert(scalar.begin(), std::byte{0});
    const auto key = AgreementKey::of(Suite::kP256Aes256, Secret<32>::of(scalar));
    ASSERT_TRUE(key) << c.id << key.error().message;
    const auto shared = key->agree(c.bytes(0));
    if (c.result == "valid") {
      ASSERT_TRUE(shared) << c.id;
      EXPECT_EQ(hex(shared->view()), c.fields[2]) << c.id;
    } else {
      EXPECT_FALSE(shared) << c.id << ": no uncompressed point of the curve";
    }
  }
}

void check_aead(const std::string& file, Suite suite, std::size_t count) {
  const auto cases = test::wycheproof(file);
  ASSERT_EQ(cases.size(), count);
  for (const auto& c : cases) {
    Nonce nonce;
    std::ranges::copy(c.bytes(1), nonce.begin());
    auto sealed = c.bytes(4);
    const auto tag = c.bytes(5);
    sealed.insert(sealed.end(), tag.begin(), tag.end());
    const auto key = Secret<32>::of(c.bytes(0));
    const auto opened = open(suite, key, sealed, c.bytes(2), nonce);
    EXPECT_EQ(opened.has_value(), c.result == "valid") << c.id;
    if (c.result == "valid") {
      EXPECT_EQ(*opened, c.bytes(3)) << c.id;
      EXPECT_EQ(*seal(suite, key, c.bytes(3), c.bytes(2), nonce), sealed) << c.id;
    }
  }
}
TEST(Wycheproof, ChaCha20Poly1305) { check_aead("chacha20_poly1305.txt", Suite::kX25519ChaCha20, 293); }
TEST(Wycheproof, Aes256Gcm) { check_aead("aes_256_gcm.txt", Suite::kP256Aes256, 48); }

TEST(Wycheproof, Hkdf) {
  const auto cases = test::wycheproof("hkdf_sha256.txt");
  ASSERT_EQ(cases.size(), 105u);
  for (const auto& c : cases) {
    Bytes out(std::stoul(c.fields[3]));
    const auto done = hkdf(c.bytes(0), c.bytes(1), c.bytes(2), out);
    EXPECT_EQ(done.has_value(), c.result == "valid") << c.id;
    if (done) {
      EXPECT_EQ(hex(out), c.fields[4]) << c.id;
    }
  }
}

TEST(Wycheproof, Ed25519) {
  const auto cases = test::wycheproof("ed25519.txt");
  ASSERT_EQ(cases.size(), 145u);
  for (const auto& c : cases) {
    const auto key = ed25519_public(c.bytes(0));
    ASSERT_TRUE(key) << c.id;
    EXPECT_EQ(verify(key.get(), c.bytes(1), c.bytes(2)).has_value(), c.result == "valid") << c.id;
  }
}

TEST(Wycheproof, EcdsaOnP256) {
  const auto cases = test::wycheproof("ecdsa_p256_sha256.txt");
  ASSERT_EQ(cases.size(), 387u);
  for (const auto& c : cases) {
    const auto point = c.bytes(0);
    EVP_PKEY* empty = EVP_PKEY_new();
    ASSERT_EQ(EVP_PKEY_copy_parameters(empty, EvpKey(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")).get()), 1);
    const EvpKey key(empty);
    ASSERT_EQ(EVP_PKEY_set1_encoded_public_key(key.get(), raw(point), point.size()), 1);
    const bool good = verify(key.get(), c.bytes(1), c.bytes(2)).has_value();
    if (c.result != "acceptable") {  // that one has a padded length, which DER readers differ on
      EXPECT_EQ(good, c.result == "valid") << c.id;
    }
  }
}

TEST(Secret, IsWipedWhenItMovesAndDies) {
  auto one = Secret<32>::of(Bytes(32, std::byte{7}));
  const auto two = std::move(one);
  EXPECT_TRUE(one == Secret<32>{});
  EXPECT_FALSE(two == one);
}

}  // namespace
}  // namespace preceptor::privacy
