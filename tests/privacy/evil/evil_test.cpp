#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "privacy/secure_aggregation/certificate_identity.h"
#include "tests/support/certificates.h"
#include "tests/support/process.h"

/// Peers with valid certificates that break the protocol, as processes over TLS; each rule is refused by name.
namespace preceptor {
namespace {

using test::Process;
using testing::HasSubstr;

const std::vector<std::string> kSites{"hospital-1", "hospital-2", "hospital-3", "hospital-4"};

struct Rule {
  const char* broken;
  const char* named;  ///< in what the honest side prints
};
/// gtest wants letters and digits.
std::string name_of(const testing::TestParamInfo<Rule>& instance) {
  std::string name = instance.param.broken;
  std::erase(name, '-');
  return name;
}
void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.broken; }

class Evil : public testing::TestWithParam<Rule> {
 protected:
  Evil() {
    consortium.coordinator();
    for (const auto& site : kSites) consortium.node(site);
  }
  Process coordinator(const std::string& rule) {
    Process process({PRECEPTOR_MASKED_PEER, "coordinator", (consortium.path() / "coordinator").string(), rule}, logs / "coordinator.log");
    port = process.wait_for("(port ");
    EXPECT_FALSE(port.empty()) << process.output();
    if (!port.empty()) port.pop_back();
    return process;
  }
  Process node(const std::string& site, const std::string& rule) {
    return Process({PRECEPTOR_MASKED_PEER, "node", (consortium.path() / site).string(), port, rule}, logs / (site + ".log"));
  }
  test::Consortium consortium;
  test::TempDir logs;
  std::string port;
};

class EvilCoordinator : public Evil {};
TEST_P(EvilCoordinator, IsRefusedByEveryNodeWithTheRule) {
  auto evil = coordinator(GetParam().broken);
  std::vector<Process> nodes;
  for (const auto& site : kSites) nodes.push_back(node(site, "honest"));
  nodes[0].wait_for(GetParam().named);
  EXPECT_THAT(nodes[0].output(), HasSubstr(GetParam().named)) << evil.output();
  evil.wait_for("round 1: ");
  EXPECT_THAT(evil.output(), testing::Not(HasSubstr("complete"))) << evil.output();
}
INSTANTIATE_TEST_SUITE_P(Rules, EvilCoordinator,
                         testing::Values(Rule{"cohort-floor", "refuses: secure aggregation on other terms"}, Rule{"forged-roster", "refuses: another roster"},
                                         Rule{"split-model", "refuses: another model"}, Rule{"low-threshold", "it must be 3"},
                                         Rule{"key-in-the-middle", "hospital-4: signature does not verify"}, Rule{"sybil", "a foreign key"},
                                         Rule{"changed-shares", "sealed bytes do not authenticate"}, Rule{"all-dead", "this node is listed as dead"},
                                         Rule{"both-lists", "both kinds of share are never given"}, Rule{"unknown-member", "unknown member 77"},
                                         Rule{"few-confirmations", "1 confirmed the survivors"}),
                         name_of);

/// Lies that show in the second round.
class EvilPublisher : public Evil {};
TEST_P(EvilPublisher, IsRefusedByEveryNodeInTheNextRound) {
  auto evil = coordinator(GetParam().broken);
  std::vector<Process> nodes;
  for (const auto& site : kSites) nodes.push_back(node(site, "honest"));
  for (auto& one : nodes) {
    one.wait_for(GetParam().named);
    EXPECT_THAT(one.output(), HasSubstr(GetParam().named)) << evil.output();
  }
  evil.wait_for("round 2: ");
  EXPECT_THAT(evil.output(), HasSubstr("round 1: complete"));
  EXPECT_THAT(evil.output(), HasSubstr("round 2: void"));
}
INSTANTIATE_TEST_SUITE_P(Rules, EvilPublisher,
                         testing::Values(Rule{"crafted-model", "stops: the coordinator's model is not what its published sums make of this site's"},
                                         Rule{"swapped-model", "refuses: another model than the one that this site was given"},
                                         Rule{"unpublished-model", "stops: no published sum leads from this site's model of round 1 to the coordinator's of round 2"}),
                         name_of);

class EvilCoordinatorOfTwoStories : public Evil {};
TEST_F(EvilCoordinatorOfTwoStories, HearsTheFirstAnswerOnly) {
  auto evil = coordinator("two-stories");
  std::vector<Process> nodes;
  for (const auto& site : kSites) nodes.push_back(node(site, "honest"));
  nodes[0].wait_for("equivocation: a second, different Survivors");
  EXPECT_THAT(nodes[0].output(), HasSubstr("equivocation: a second, different Survivors"));
}

class EvilNode : public Evil {};
TEST_P(EvilNode, IsRefusedOrGotAroundAndNamed) {
  auto honest = coordinator("honest");
  std::vector<Process> nodes;
  for (const auto& site : kSites) nodes.push_back(node(site, site == "hospital-2" ? GetParam().broken : "honest"));
  honest.wait_for("round 1: ");
  EXPECT_THAT(honest.output(), HasSubstr(GetParam().named));
}
INSTANTIATE_TEST_SUITE_P(Rules, EvilNode,
                         testing::Values(Rule{"honest", "complete of 4 updates"}, Rule{"foreign-key", "missing hospital-2: refused: hospital-2: signature does not verify"},
                                         Rule{"no-signature", "missing hospital-2: refused: hospital-2: signature does not verify"},
                                         Rule{"one-key", "missing hospital-2: refused: one key for two purposes"},
                                         Rule{"missing-share", "missing hospital-2: refused: 2 shares for 3 peers"},
                                         Rule{"repeated-share", "missing hospital-2: refused: two shares for member"},
                                         Rule{"wrong-peers-share", "shares of hospital-2: sealed bytes do not authenticate"},
                                         Rule{"broken-tag", "shares of hospital-2: sealed bytes do not authenticate"},
                                         Rule{"forged-confirmation", "hospital-2: signature does not verify"},
                                         Rule{"wrong-kind", "the wrong kind of share of hospital-1"}, Rule{"repeated-unmask", "two shares of hospital-1"},
                                         Rule{"lying-share", "lied hospital-2: hospital-2 holds a share of hospital-1 that disagrees"},
                                         Rule{"size", "missing hospital-2: refused: "}, Rule{"loss-in-the-clear", "states its images, loss or fidelity in the clear"},
                                         Rule{"two-stories", "equivocation: a second, different Advertisement"}),
                         name_of);

TEST(CertificateRoster, TakesTheCertifiedNodeOfThatNameAndNobodyElse) {
  test::Consortium consortium, foreign;
  const auto open = [](const transport::TlsFiles& f) { return privacy::CertificateFiles{f.certificate, f.key, f.ca, f.crl}; };
  const auto files = open(consortium.node("hospital-1"));
  const auto signer = privacy::CertificateSigner::open(files);
  ASSERT_TRUE(signer) << signer.error().message;
  EXPECT_EQ(signer->name(), "hospital-1");
  const auto roster = *privacy::CertificateRoster::open(files);
  const auto message = bytes_of("a statement");
  const auto signature = *signer->sign(message);
  const auto refusal = [&](const privacy::Roster& by, const std::string& name, std::span<const std::byte> credential, std::span<const std::byte> what) {
    const auto verified = by.verify(name, credential, what, signature);
    return verified ? std::string() : verified.error().message;
  };
  EXPECT_EQ(refusal(roster, "hospital-1", signer->credential(), message), "");
  EXPECT_THAT(refusal(roster, "hospital-1", signer->credential(), bytes_of("another")), HasSubstr("does not verify"));
  EXPECT_THAT(refusal(roster, "hospital-2", signer->credential(), message), HasSubstr("a foreign key, certified for 'hospital-1'"));
  EXPECT_THAT(refusal(roster, "hospital-1", Bytes(100), message), HasSubstr("no certificate"));
  auto longer = signer->credential();
  longer.push_back(std::byte{0});
  EXPECT_THAT(refusal(roster, "hospital-1", longer, message), HasSubstr("no certificate"));

  const auto theirs = *privacy::CertificateRoster::open(open(foreign.node("hospital-1")));
  EXPECT_THAT(refusal(theirs, "hospital-1", signer->credential(), message), HasSubstr("not on the roster"));
  EXPECT_NE(theirs.digest(), roster.digest());

  consortium.revoke("hospital-1");
  const auto later = *privacy::CertificateRoster::open(files);
  EXPECT_THAT(refusal(later, "hospital-1", signer->credential(), message), HasSubstr("revoked"));
  const auto coordinator = privacy::CertificateSigner::open(open(consortium.coordinator()));
  ASSERT_FALSE(coordinator);
  EXPECT_THAT(coordinator.error().message, HasSubstr("names no node"));
}

}  // namespace
}  // namespace preceptor
