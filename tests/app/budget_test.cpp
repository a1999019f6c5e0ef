// preceptor node budget, as a program that others read.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "common/hash.h"
#include "privacy/differential_privacy/ledger.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;
using testing::HasSubstr;

struct Outcome {
  int code;
  std::string output;
};

class Budget : public testing::Test {
 protected:
  Outcome run(const std::string& words) {
    const auto out = (dir / "out").string();
    test::Process process({"/bin/sh", "-c", std::string(PRECEPTOR_PROGRAM) + " node budget --state " + dir.path().string() + " " + words + " > " + out + " 2>&1"},
                          dir / "log");
    const int code = process.wait();
    return {code, read_text(out, 1 << 20).value_or("")};
  }
  void spend() {
    auto ledger = privacy::Ledger::open(dir / "privacy", dataset, "chest", 2000);
    ASSERT_TRUE(ledger) << ledger.error().message;
    for (const auto* job : {"lung", "lung", "heart"})
      ASSERT_TRUE(ledger->debit({job, 1, {privacy::Noise::kGaussian, 0.04, 1.5, {}, 750}, 0}, {100, 1e-5}));
  }
  test::TempDir dir;
  const std::string dataset = hex(sha256("images"));
};

TEST_F(Budget, EachDataSetsSpendingIsPrintedForMachines) {
  spend();
  const auto done = run("--json --delta 1e-5 --epsilon-max 8");
  ASSERT_EQ(done.code, 0) << done.output;
  const auto json = nlohmann::json::parse(done.output, nullptr, false);
  ASSERT_EQ(json.size(), 1u) << done.output;
  EXPECT_EQ(json[0]["dataset"], dataset);
  EXPECT_EQ(json[0]["jobs"], 2);
  EXPECT_EQ(json[0]["rounds"], 3);
  EXPECT_NEAR(json[0]["epsilon_spent"].get<double>(), 6.768787, 1e-3);  // opacus/tests/accountants_test.py's case; dp_accounting
  EXPECT_NEAR(json[0]["epsilon_left"].get<double>(), 8 - 6.768787, 1e-3);
}

TEST_F(Budget, PeopleReadOneLineADataSet) {
  EXPECT_THAT(run("").output, HasSubstr("has spent any privacy budget"));
  spend();
  const auto done = run("");
  EXPECT_EQ(done.code, 0);
  EXPECT_THAT(done.output, HasSubstr("chest"));
  EXPECT_THAT(done.output, HasSubstr("2 jobs, 3 rounds"));
  EXPECT_THAT(done.output, HasSubstr("at δ = 5e-05"));  // 1 / (10 · 2000)
}

TEST_F(Budget, ADamagedLedgerIsAnErrorAndNotAnEmptyOne) {
  spend();
  const auto file = dir.path() / "privacy" / (dataset + ".ledger");
  auto text = read_text(file, 1 << 20).value();
  text[text.size() / 2] ^= 1;
  ASSERT_TRUE(write_file(file, text));
  const auto done = run("");
  EXPECT_EQ(done.code, 2);  // as of every file that is not what it should be
  EXPECT_THAT(done.output, HasSubstr("put the ledger and its .head back"));
}

}  // namespace
