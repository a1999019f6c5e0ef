#include "transport/certificates.h"

#include <gmock/gmock.h>

#include "tests/support/temp_dir.h"
#include "transport/openssl.h"

namespace preceptor::transport {
namespace {

using ::testing::HasSubstr;

#define ASSERT_OK(...)                                                \
  do {                                                                \
    const auto result_ = (__VA_ARGS__);                               \
    ASSERT_TRUE(result_) << (result_ ? "" : result_.error().message); \
  } while (false)

class Certificates : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(init_authority(ca_, "test-consortium")); }

  IssuedFiles issue(const CertificateRequest& request) {
    auto files = issue_certificate(ca_, request);
    EXPECT_TRUE(files) << (files ? "" : files.error().message);
    return files.value_or(IssuedFiles{});
  }
  /// OpenSSL's own verdict, with the flags of the TLS profile; X509_V_OK or another X509_V_ERR.
  int verify(const IssuedFiles& files, const char* purpose) const {
    const Owned<X509_STORE, X509_STORE_free> store(X509_STORE_new());
    X509_STORE_add_cert(store.get(), read_certificate(files.ca)->get());
    X509_STORE_add_crl(store.get(), read_crl(ca_ / "crl.pem")->get());
    X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT);
    const auto certificate = read_certificate(files.certificate);
    const Owned<X509_STORE_CTX, X509_STORE_CTX_free> context(X509_STORE_CTX_new());
    X509_STORE_CTX_init(context.get(), store.get(), certificate->get(), nullptr);
    X509_STORE_CTX_set_default(context.get(), purpose);
    X509_verify_cert(context.get());
    return X509_STORE_CTX_get_error(context.get());
  }

  test::TempDir directory_;
  std::filesystem::path ca_ = directory_ / "ca";
};

std::filesystem::perms mode_of(const std::filesystem::path& path) {
  return std::filesystem::status(path).permissions() & std::filesystem::perms::mask;
}

TEST_F(Certificates, PassStrictVerificationForTheirPurposeOnly) {
  const auto node = issue({.name = "st-mary.north"});
  EXPECT_EQ(verify(node, "ssl_client"), X509_V_OK);
  EXPECT_EQ(verify(node, "ssl_server"), X509_V_ERR_INVALID_PURPOSE);
  const auto coordinator = issue(
      {"hub", CertificateRole::kCoordinator, {"hub.example.org", "127.0.0.1", "::1"}, 30, {}});
  EXPECT_EQ(verify(coordinator, "ssl_server"), X509_V_OK);
  EXPECT_EQ(verify(coordinator, "ssl_client"), X509_V_ERR_INVALID_PURPOSE);
  const auto certificate = read_certificate(coordinator.certificate);
  EXPECT_EQ(X509_check_host(certificate->get(), "hub.example.org", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_ip_asc(certificate->get(), "127.0.0.1", 0), 1);
  EXPECT_EQ(X509_check_host(certificate->get(), "other.example.org", 0, 0, nullptr), 0);
}

TEST_F(Certificates, KeepTheirKeysPrivate) {
  const auto owner_only = std::filesystem::perms::owner_read | std::filesystem::perms::owner_write;
  EXPECT_EQ(mode_of(ca_ / "ca.key"), owner_only);
  EXPECT_EQ(mode_of(issue({.name = "node-1"}).key), owner_only);
}

TEST_F(Certificates, LastThirtyDays) {
  const auto certificate = read_certificate(issue({.name = "node-1"}).certificate);
  int days = 0, seconds = 0;
  ASSERT_TRUE(ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate->get())));
  EXPECT_NEAR(days * 86400.0 + seconds, 30 * 86400.0, 60);
  EXPECT_LT(X509_cmp_current_time(X509_get0_notBefore(certificate->get())), 0);
}

TEST_F(Certificates, OfAnotherTimeAreMadeForTests) {
  using std::chrono::hours;
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  EXPECT_EQ(
      verify(issue({.name = "late", .window = {{now - hours(48), now - hours(24)}}}), "ssl_client"),
      X509_V_ERR_CERT_HAS_EXPIRED);
  EXPECT_EQ(verify(issue({.name = "early", .window = {{now + hours(24), now + hours(48)}}}),
                   "ssl_client"),
            X509_V_ERR_CERT_NOT_YET_VALID);
}

TEST_F(Certificates, RevokedOnesAreOnTheListForEveryIssueOfTheName) {
  const auto first = issue({.name = "node-1"});
  const auto first_copy = directory_ / "first.pem";
  std::filesystem::copy(first.certificate, first_copy);
  const auto second = issue({.name = "node-1"});
  const auto other = issue({.name = "node-2"});
  ASSERT_OK(revoke_certificate(ca_, "node-1", "keyCompromise"));
  EXPECT_EQ(verify(second, "ssl_client"), X509_V_ERR_CERT_REVOKED);
  EXPECT_EQ(verify({first_copy, {}, first.ca, {}}, "ssl_client"), X509_V_ERR_CERT_REVOKED);
  EXPECT_EQ(verify(other, "ssl_client"), X509_V_OK);
  EXPECT_EQ(*read_text(other.crl, 1 << 20), *read_text(ca_ / "crl.pem", 1 << 20))
      << "copies are renewed too";

  const auto again = revoke_certificate(ca_, "node-1");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kNotFound);
  EXPECT_EQ(verify(issue({.name = "node-1"}), "ssl_client"), X509_V_OK)
      << "a new certificate starts clean";
}

TEST_F(Certificates, TheListIsRenewedWithAHigherNumberAndGoesStale) {
  const auto node = issue({.name = "node-1"});
  const auto number = [&] {
    const auto crl = read_crl(ca_ / "crl.pem");
    const Owned<ASN1_INTEGER, ASN1_INTEGER_free> value(static_cast<ASN1_INTEGER*>(
        X509_CRL_get_ext_d2i(crl->get(), NID_crl_number, nullptr, nullptr)));
    return ASN1_INTEGER_get(value.get());
  };
  EXPECT_EQ(number(), 1);
  ASSERT_OK(renew_revocation_list(ca_));
  EXPECT_EQ(number(), 2);
  ASSERT_OK(renew_revocation_list(ca_, std::chrono::seconds(-1)));
  EXPECT_EQ(verify(node, "ssl_client"), X509_V_ERR_CRL_HAS_EXPIRED);
}

TEST_F(Certificates, RefuseWhatTheyCannotMean) {
  const auto refusal = [&](const CertificateRequest& request) {
    const auto files = issue_certificate(ca_, request);
    return files ? "" : files.error().message;
  };
  for (const char* name :
       {"", ".", "..", "../x", "a/b", "Node", "-a", "a.", "a b", "a,URI:x", "n\xc3\xb6rd"})
    EXPECT_THAT(refusal({.name = name}), HasSubstr("1 to 64 of")) << name;
  EXPECT_THAT(refusal({.name = std::string(65, 'a')}), HasSubstr("1 to 64 of"));
  EXPECT_THAT(refusal({.name = "ca.pem"}), HasSubstr("taken by a file"));
  EXPECT_THAT(refusal({.name = "a", .hosts = {"x.org"}}), HasSubstr("only dials out"));
  EXPECT_THAT(refusal({.name = "a", .role = CertificateRole::kCoordinator}),
              HasSubstr("needs the host names"));
  EXPECT_THAT(refusal({"a", CertificateRole::kCoordinator, {"x.org,URI:urn:fl:node:b"}, 30, {}}),
              HasSubstr("neither a DNS name"));
  EXPECT_THAT(refusal({.name = "a", .days = 0}), HasSubstr("1 to 398 days"));
  EXPECT_THAT(revoke_certificate(ca_, "a", "boredom").error().message,
              HasSubstr("known: affiliationChanged"));
  EXPECT_EQ(init_authority(ca_, "another").error().code, Code::kRefused);
  EXPECT_EQ(issue_certificate(directory_ / "nowhere", {.name = "a"}).error().code, Code::kNotFound);
}

TEST_F(Certificates, ADamagedIndexIsAnErrorNotALostRevocation) {
  issue({.name = "node-1"});
  ASSERT_OK(write_file(ca_ / "index.jsonl", "{\"event\":\"revoked\"}\n"));
  EXPECT_EQ(renew_revocation_list(ca_).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace preceptor::transport
