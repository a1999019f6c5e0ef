#include "privacy/differential_privacy/ledger.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "common/file.h"
#include "common/hash.h"
#include "common/random.h"
#include "tests/support/temp_dir.h"

namespace preceptor::privacy {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;

const std::string kData = hex(sha256("images of a hospital"));
const Budget kPlenty{1e9, 1e-5};

Debit step(std::uint32_t round, double sigma = 2) { return {"lung", round, {Noise::kGaussian, 0.1, sigma, {}, 10}, 0}; }
fs::path file_in(const fs::path& dir) { return dir / (kData + ".ledger"); }
fs::path head_in(const fs::path& dir) { return dir / (kData + ".head"); }
Result<Ledger> open(const fs::path& dir) { return Ledger::open(dir, kData, "chest", 5000); }

std::string text_of(const fs::path& path) { return read_text(path, 1 << 20).value(); }
void put(const fs::path& path, std::string_view text) { ASSERT_TRUE(std::ofstream(path, std::ios::binary) << text << std::flush); }

TEST(Ledger, RemembersEveryDebitOfEveryJobToTheLastDigit) {
  TempDir dir;
  const Mechanism integers{Noise::kSkellam, 0.3, 1, {1.7, 5, 123.456, 7e5, 1 << 20}, 1};
  double spent = 0;
  {
    auto ledger = open(dir.path());
    ASSERT_TRUE(ledger) << ledger.error().message;
    ASSERT_TRUE(ledger->debit(step(1, 1.0 / 3 + 1), kPlenty));
    ASSERT_TRUE(ledger->debit({"skin", 7, integers, 0}, kPlenty));
    spent = ledger->state().spent(1e-5).epsilon;
  }
  const auto again = open(dir.path());
  ASSERT_TRUE(again) << again.error().message;
  const auto& state = again->state();
  ASSERT_EQ(state.debits.size(), 2u);
  EXPECT_EQ(state.name, "chest");
  EXPECT_EQ(state.records, 5000u);
  EXPECT_EQ(state.debits[0].job, "lung");
  EXPECT_TRUE(state.debits[0].mechanism.same_step(step(1, 1.0 / 3 + 1).mechanism));
  EXPECT_EQ(state.debits[0].mechanism.steps, 10u);
  EXPECT_EQ(state.debits[1].round, 7u);
  EXPECT_TRUE(state.debits[1].mechanism.same_step(integers));
  EXPECT_GT(state.debits[1].time, 1'700'000'000);
  EXPECT_EQ(state.spent(1e-5).epsilon, spent);
  EXPECT_EQ(read_ledger(file_in(dir.path())).value().debits.size(), 2u);
  EXPECT_EQ(ledgers_in(dir.path()).value(), std::vector{file_in(dir.path())});
}

TEST(Ledger, IsForTheHospitalsEyesAlone) {
  TempDir dir;
  ASSERT_TRUE(open(dir.path()));
  for (const auto& path : {file_in(dir.path()), head_in(dir.path())}) {
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << path;
  }
}

TEST(Ledger, RefusesWhatWouldSpendMoreThanTheBudgetAndWritesNothing) {
  TempDir dir;
  auto ledger = open(dir.path());
  ASSERT_TRUE(ledger);
  const Budget budget{2, 1e-5};
  int rounds = 0;
  Result<void> debited;
  while ((debited = ledger->debit(step(std::uint32_t(rounds + 1)), budget)) && rounds < 1000) ++rounds;
  ASSERT_FALSE(debited);
  EXPECT_EQ(debited.error().code, Code::kRefused);
  EXPECT_THAT(debited.error().message, HasSubstr("limits.privacy.epsilon_max is 2"));
  EXPECT_GT(rounds, 3);
  EXPECT_LE(ledger->state().spent(1e-5).epsilon, 2);
  // The Rényi bound alone would have said no before.
  EXPECT_GT(rdp_spent(ledger->state().released(), 1e-5).epsilon, 2);
  EXPECT_EQ(read_ledger(file_in(dir.path())).value().debits.size(), std::size_t(rounds));
  // Less noise is refused too, and a larger budget goes on where this one ended.
  EXPECT_FALSE(ledger->debit(step(1, 1), budget));
  EXPECT_TRUE(ledger->debit(step(1), {4, 1e-5}));
}

TEST(Ledger, SaysBeforehandWhetherAJobIsAffordable) {
  TempDir dir;
  auto ledger = open(dir.path());
  ASSERT_TRUE(ledger);
  const Budget budget{2, 1e-5};
  EXPECT_TRUE(ledger->affordable(step(1).mechanism, 5, budget));
  EXPECT_FALSE(ledger->affordable(step(1).mechanism, 500, budget));
  EXPECT_TRUE(ledger->state().debits.empty());
}

TEST(Ledger, TwoDataSetsHaveTwoBudgets) {
  TempDir dir;
  auto one = open(dir.path());
  auto two = Ledger::open(dir.path(), hex(sha256("other images")), "skin", 10);
  ASSERT_TRUE(one && two);
  ASSERT_TRUE(one->debit(step(1), kPlenty));
  EXPECT_EQ(two->state().spent(1e-5).epsilon, 0);
  EXPECT_EQ(ledgers_in(dir.path()).value().size(), 2u);
}

TEST(Ledger, OneProcessAtATimeSpends) {
  TempDir dir;
  const auto first = open(dir.path());
  const auto second = open(dir.path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kUnavailable);
  EXPECT_TRUE(read_ledger(file_in(dir.path())));  // looking is free
}

TEST(Ledger, WithoutAFolderThereAreNoLedgers) {
  TempDir dir;
  EXPECT_TRUE(ledgers_in(dir.path() / "none").value().empty());
  EXPECT_FALSE(ledgers_in("/proc/self/mem"));
}

/// A ledger after `debits` debits, as file and head.
struct Files {
  std::string ledger, head;
};
std::vector<Files> history(int debits) {
  TempDir dir;
  std::vector<Files> files;
  auto ledger = open(dir.path());
  for (int i = 0;; ++i) {
    files.push_back({text_of(file_in(dir.path())), text_of(head_in(dir.path()))});
    if (i == debits) return files;
    EXPECT_TRUE(ledger->debit(step(std::uint32_t(i + 1)), kPlenty));
  }
}

TEST(Ledger, ATornEndIsMendedFromTheHeadAndCounts) {  // I11, at every byte at which a crash can cut
  const auto files = history(3);
  const auto& before = files[2].ledger;
  const auto& after = files[3].ledger;
  for (auto cut = before.size(); cut <= after.size(); ++cut) {
    TempDir dir;
    put(file_in(dir.path()), after.substr(0, cut));
    put(head_in(dir.path()), files[3].head);
    EXPECT_EQ(read_ledger(file_in(dir.path())).value().debits.size(), 3u) << cut;
    {
      const auto ledger = open(dir.path());
      ASSERT_TRUE(ledger) << cut << ": " << ledger.error().message;
      EXPECT_EQ(ledger->state().debits.size(), 3u);
    }
    EXPECT_EQ(text_of(file_in(dir.path())), after) << cut;
  }
}

TEST(Ledger, ACrashBeforeTheHeadIsNewLeavesTheLedgerAsItWas) {
  const auto files = history(2);
  TempDir dir;
  put(file_in(dir.path()), files[1].ledger);
  put(head_in(dir.path()), files[1].head);
  put(dir.path() / (kData + ".head.tmp1.2"), "half a li");
  EXPECT_EQ(open(dir.path())->state().debits.size(), 1u);
}

TEST(Ledger, ANewLedgerSurvivesACrashInItsFirstLine) {
  const auto files = history(0);
  for (std::size_t cut = 0; cut <= files[0].ledger.size(); ++cut) {
    TempDir dir;
    put(file_in(dir.path()), files[0].ledger.substr(0, cut));
    put(head_in(dir.path()), files[0].head);
    EXPECT_TRUE(open(dir.path())) << cut;
  }
}

TEST(Ledger, ALedgerThatLostMoreThanItsLastLineIsRefused) {
  const auto files = history(3);
  for (std::size_t cut = 0; cut < files[2].ledger.size(); ++cut) {
    TempDir dir;
    put(file_in(dir.path()), files[3].ledger.substr(0, cut));
    put(head_in(dir.path()), files[3].head);
    const auto ledger = open(dir.path());
    ASSERT_FALSE(ledger) << cut;
    EXPECT_EQ(ledger.error().code, Code::kCorrupt);
    EXPECT_THAT(ledger.error().message, HasSubstr("nothing is released"));
    EXPECT_EQ(text_of(file_in(dir.path())), files[3].ledger.substr(0, cut)) << "changed what it did not trust";
  }
}

TEST(Ledger, AChangedByteAnywhereIsSeen) {
  const auto files = history(2);
  for (std::size_t at = 0; at < files[2].ledger.size(); ++at) {
    TempDir dir;
    auto changed = files[2].ledger;
    changed[at] = char(changed[at] ^ 1);
    put(file_in(dir.path()), changed);
    put(head_in(dir.path()), files[2].head);
    const auto ledger = open(dir.path());
    // The end of the last line counts as torn, and the head has that line.
    if (ledger) {
      EXPECT_GE(at, files[1].ledger.size());
      EXPECT_EQ(ledger->state().debits.size(), 2u);
    } else {
      EXPECT_EQ(ledger.error().code, Code::kCorrupt) << at;
    }
  }
}

TEST(Ledger, AHeadThatIsGoneChangedOrOldIsSeen) {
  const auto files = history(2);
  for (const auto& head : {std::string(), files[0].head, files[1].head, files[2].head.substr(0, 80), files[2].head + "\n", std::string("\n")}) {
    TempDir dir;
    put(file_in(dir.path()), files[2].ledger);
    if (!head.empty()) put(head_in(dir.path()), head);
    const auto ledger = open(dir.path());
    ASSERT_FALSE(ledger) << head;
    EXPECT_EQ(ledger.error().code, Code::kCorrupt);
  }
}

TEST(Ledger, ALedgerOfOtherDataDoesNotPassForThis) {
  const auto files = history(1);
  TempDir dir;
  const auto other = dir.path() / (hex(sha256("other")) + ".ledger");
  put(other, files[1].ledger);
  put(fs::path(other).replace_extension(".head"), files[1].head);
  EXPECT_FALSE(Ledger::open(dir.path(), hex(sha256("other")), "x", 1));
  EXPECT_FALSE(Ledger::open(dir.path(), "../" + kData.substr(3), "x", 1));
}

TEST(Ledger, HostileBytesAreRefusedOrUnderstood) {
  rc::check("any bytes", [](const std::string& ledger, const std::string& head) {
    TempDir dir;
    put(file_in(dir.path()), ledger);
    put(head_in(dir.path()), head);
    const auto opened = open(dir.path());
    RC_ASSERT(opened.has_value() == (ledger.empty() && head.empty()));
  });
}

/// kill -9 at moments nobody chose: the child tells of each debit after it returned.
TEST(Ledger, SpentIsNeverLessThanWhatWasLetOutWhateverIsKilled) {
  TempDir dir;
  RandomStream random(12, "kills");
  std::size_t told = 0;
  for (int life = 0; life < 40; ++life) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const auto child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(pipe[0]);
      auto ledger = open(dir.path());
      if (!ledger) ::_exit(3);
      for (std::uint32_t round = 1;; ++round) {
        if (!ledger->debit(step(round), kPlenty)) ::_exit(4);
        if (::write(pipe[1], "d", 1) != 1) ::_exit(5);
      }
    }
    ::close(pipe[1]);
    char byte;
    ASSERT_EQ(::read(pipe[0], &byte, 1), 1);
    ++told;
    ::usleep(useconds_t(random.below(15'000)));
    ::kill(child, SIGKILL);
    while (::read(pipe[0], &byte, 1) == 1) ++told;
    ::close(pipe[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    const auto ledger = open(dir.path());
    ASSERT_TRUE(ledger) << ledger.error().message;
    ASSERT_GE(ledger->state().debits.size(), told);
    ASSERT_LE(ledger->state().debits.size(), told + std::size_t(life) + 1);  // one a life that was not told of
  }
}

TEST(Ledger, CompositionDoesNotDependOnHowJobsInterleave) {
  rc::check("order", [] {
    const auto count = *rc::gen::inRange<std::size_t>(1, 12);
    std::vector<Mechanism> released;
    for (std::size_t i = 0; i < count; ++i)
      released.push_back({Noise::kGaussian, *rc::gen::element(0.01, 0.1, 1.0), *rc::gen::element(1.0, 4.0), {}, *rc::gen::inRange<std::uint64_t>(1, 20)});
    auto shuffled = released;
    RandomStream(*rc::gen::arbitrary<std::uint64_t>(), "order").shuffle(std::span(shuffled));
    const double spent = rdp_spent(released, 1e-5).epsilon;
    RC_ASSERT(std::abs(rdp_spent(shuffled, 1e-5).epsilon - spent) <= 1e-9 * spent);
    auto more = released;
    more.push_back(released[0]);
    RC_ASSERT(rdp_spent(more, 1e-5).epsilon >= spent);
  });
}

}  // namespace
}  // namespace preceptor::privacy
