// The page that is made of a run directory.
#include "app/report.h"

#include <gtest/gtest.h>

#include "app/report_page.h"
#include "common/file.h"
#include "tests/app/made_run.h"
#include "tests/support/temp_dir.h"

namespace preceptor::app {
namespace {

/// A run directory as the program leaves it, and the page that is made of it.
class ReportTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(write_file(dir_ / name, text));
  }
  void write_run(const Json& json) {
    write("summary.json", json.dump(2));
    write("config.yaml", "seed: 1\n");
    write("rounds.jsonl",
          round_line(1, {"north", "south"}, kNobody).dump() + "\n" +
              round_line(2, {"north"}, {{"south", "no update before the deadline"}}).dump() + "\n");
  }
  std::string page() {
    const auto done = write_report(dir_.path());
    EXPECT_TRUE(done) << done.error().message;
    return read_text(dir_ / "report.html", 2 << 20).value_or("more than 2 MiB");
  }
  std::string error() {
    const auto done = write_report(dir_.path());
    return done ? "no error" : done.error().message;
  }
  test::TempDir dir_;
};

/// The first element that is not closed, or closed out of order; empty when all are.
std::string first_unbalanced(const std::string& page) {
  std::vector<std::string> open;
  for (auto at = page.find('<'); at != page.npos; at = page.find('<', at + 1)) {
    const auto tag = page.substr(at + 1, page.find('>', at) - at - 1);
    const auto name = tag.substr(0, tag.find_first_of(" /", 1));
    if (name == "meta" || name == "!DOCTYPE" || tag.ends_with('/')) continue;
    if (!tag.starts_with('/')) {
      open.push_back("/" + name);
    } else {
      if (open.empty() || open.back() != tag) return tag;
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

TEST_F(ReportTest, TellsWhatTheCodecLeftOfTheUpdatesAndNamesAStageThatDestroysThem) {
  write_run(summary({site("north", 0.06, "federation helped")}));
  EXPECT_EQ(page().find("What did the codec leave"), std::string::npos) << "nothing was measured";
  auto line = round_line(1, {"north"}, kNobody);
  line["fidelity"] = {{{"stage", "topk"}, {"cosine", 0.75}, {"norm_ratio", 0.5}},
                      {{"stage", "quan<tize"}, {"cosine", 0.05}, {"norm_ratio", 4}},
                      "rubbish"};
  write("rounds.jsonl", line.dump() + "\n");
  const auto text = page();
  EXPECT_NE(text.find("What did the codec leave of the updates?"), std::string::npos);
  EXPECT_NE(text.find("0.750"), std::string::npos);
  EXPECT_NE(text.find("Stage quan&lt;tize of the update codec destroys the updates"), std::string::npos);
  EXPECT_EQ(text.find("Stage topk of the update codec destroys"), std::string::npos);
  EXPECT_EQ(first_unbalanced(text), "");
}

TEST_F(ReportTest, AnswersFirstThenShowsEveryPart) {
  write_run(
      summary({site("north", 0.06, "federation helped"), site("south", 0.01, "no difference")}));
  const auto text = page();
  std::size_t at = 0;
  for (const char* part :
       {"<h1>Federation helped 1 of 2 sites; none was harmed.</h1>",
        "Did federation help each site?", "Difference to training alone",
        "How good are the models?", "How did the rounds go?", "What went over the wire?",
        "Who took part?", "<h2>Data</h2>", "Where does this come from?", "<details>"}) {
    const auto found = text.find(part, at);
    ASSERT_NE(found, text.npos) << part;
    at = found;
  }
  for (const char* part : {"p = 0.004", "0.830–0.870", "+0.060", "▲", "●</span> no difference",
                           "16.0×", "352 k", "1 min 32 s", "no update before the deadline",
                           "a.png: ends early", "seed: 1", "✓ that of config.yaml"})
    EXPECT_TRUE(has(text, part)) << part;
  EXPECT_EQ(first_unbalanced(text), "");
}

TEST_F(ReportTest, IsOneFileThatFetchesNothing) {
  write_run(summary({site("north", 0.06, "federation helped")}));
  const auto text = page();
  EXPECT_TRUE(has(text, "default-src 'none'"));
  for (const char* part :
       {"<script", "<link", "<img", "src=\"", "href=", "url(", "@import", "http:", "https:"})
    EXPECT_FALSE(has(text, part)) << part;
}

TEST_F(ReportTest, ForeignTextStaysText) {
  const std::string hostile = "<script>alert('1')</script>\"&\x1b[31m\u202e";
  auto json = summary({site(hostile, 0.06, "federation helped")});
  for (const char* key :
       {"job", "ended_because", "config_hash", "student", "model_hash", "version"})
    json[key] = hostile;
  json["completed"] = false;
  json["classes"] = {hostile, hostile};
  json["data"]["skipped"] = {hostile};
  json["data"]["notes"] = {hostile};
  json["sites"][0]["chosen"] = hostile;
  json["sites"][0]["metric"] = hostile;
  write_run(json);
  auto line = round_line(1, {hostile, "south"}, {{hostile + "2", hostile}});
  line["outcome"] = hostile;
  write("rounds.jsonl", line.dump() + "\n");
  write("config.yaml", hostile + "\xff\xc3");
  const auto text = page();
  EXPECT_FALSE(has(text, "<script"));
  EXPECT_FALSE(has(text, "\x1b"));
  EXPECT_FALSE(has(text, "\u202e"));
  EXPECT_FALSE(has(text, "\xff"));
  EXPECT_TRUE(
      has(text, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;\uFFFD[31m\uFFFD"));
  EXPECT_EQ(first_unbalanced(text), "");
  const auto shown = summary_text(json);
  EXPECT_FALSE(has(shown, "\x1b"));
  EXPECT_FALSE(has(shown, "\u202e"));
}

TEST_F(ReportTest, WhatIsNotDefinedIsADashWithItsReason) {
  write_run(summary({site("north", 0.06, "no difference", nullptr)}));
  const auto text = page();
  EXPECT_TRUE(has(text, "cannot tell an AUC"));
  EXPECT_EQ(times(text, "<span class=\"none\">–</span>"), 3u);
  EXPECT_TRUE(has(text, "</b> accuracy"));
  write_run(summary({site("north", 0.06, "no difference")}));
  EXPECT_FALSE(has(page(), "cannot tell an AUC"));
}

TEST_F(ReportTest, EveryKeyOfTheSummaryMayBeMissingOrOfAnotherType) {
  const auto whole = with_references(
      summary({site("north", 0.06, "federation helped"), site("south", 0.01, "no difference")}));
  std::vector<std::string> paths;
  const auto leaves = whole.flatten();
  for (const auto& [path, value] : leaves.items()) paths.push_back(path);
  for (const auto& [key, value] : whole.items()) paths.push_back("/" + key);
  const Json others[] = {nullptr, true, -3, 1.5, 1e300, "text", Json::array(), Json{{"a", 1}}};
  for (const auto& path : paths)
    for (const auto& other : others) {
      auto changed = whole;
      changed[Json::json_pointer(path)] = other;
      app::Run run;
      auto read = to_summary(changed, run.flaws);
      ASSERT_TRUE(read || path == "/sites") << path;
      if (!read) continue;
      run.summary = *std::move(read);
      EXPECT_EQ(first_unbalanced(page_html(run)), "") << path << " = " << other;
      EXPECT_FALSE(summary_text(changed).empty());
    }
  for (const auto& [key, value] : whole.items()) {
    auto json = whole;
    json.erase(key);
    write_run(json);
    EXPECT_EQ(first_unbalanced(page()), "") << key;
  }
  write("summary.json", "{}");
  EXPECT_TRUE(has(page(), "No site has sent a verdict"));
}

TEST_F(ReportTest, WrongTypesAreNamedOnThePage) {
  auto json = summary({site("north", 0.06, "federation helped")});
  json["sites"][0]["local_auc"] = "much";
  json["seed"] = -1;
  write_run(json);
  const auto text = page();
  EXPECT_TRUE(has(text, "summary.json: sites[0].local_auc is not a number"));
  EXPECT_TRUE(has(text, "summary.json: seed is not a count"));
}

TEST_F(ReportTest, OfASegmentationShowsDiceAndNoAuc) {
  const auto json =
      segmented(summary({site("north", 0.08, "federation helped"), site("south", 0.01, "no difference")}));
  write_run(json);
  auto line = round_line(1, {"north", "south"}, kNobody);
  line["validation"] = {{"auc", nullptr}};
  put(line["validation"], "dice", 0.66);
  write("rounds.jsonl", line.dump() + "\n");
  const auto text = page();
  for (const char* part : {"reaches a Dice of <b>0.830</b>", "its teacher 0.870", "Local Dice", "Global Dice",
                           "Personalised Dice", "0.710", "IoU", "HD95 (pixels)", "7.250", "twice the common area",
                           "Chosen federated model minus local model: Dice",
                           "Dice on the consortium’s validation images", "Classes: background, object"})
    EXPECT_TRUE(has(text, part)) << part;
  for (const char* part : {"AUC", "Accuracy", "Sensitivity", "ECE", "cannot tell", "– :"})
    EXPECT_FALSE(has(text, part)) << part;
  EXPECT_EQ(first_unbalanced(text), "");
  auto spoiled = json;
  put(spoiled["distilled"], "dice", 0.9);  // above the federated student's interval
  write("summary.json", spoiled.dump());
  EXPECT_TRUE(has(page(), "below the distilled student’s Dice"));
  const auto shown = summary_text(json);
  EXPECT_TRUE(has(shown, "test Dice federated 0.830 (0.810..0.850)")) << shown;
  EXPECT_TRUE(has(shown, "0.710")) << shown;
  EXPECT_FALSE(has(shown, "AUC")) << shown;
}

TEST_F(ReportTest, OfASegmentationWithoutATeacherOrTestImagesIsWhole) {
  auto json = segmented(summary({site("north", 0.08, "federation helped"), site("south", 0, "no difference")}));
  json["teacher"] = {{"auc", nullptr}, {"parameters", 0}};  // as coordinator/job.cpp leaves it
  for (const std::string who : {"local", "global", "personalised"}) put(json["sites"][1], who + "_dice", nullptr);
  json["sites"][1]["metric"] = "";
  write_run(json);
  const auto text = page();
  EXPECT_TRUE(has(text, "the site has no test image"));
  EXPECT_TRUE(has(text, "– : not measured."));
  EXPECT_TRUE(has(text, "1 could not tell"));
  EXPECT_FALSE(has(text, "AUC")) << "whatever is not there, this was a segmentation";
  EXPECT_EQ(first_unbalanced(text), "");
}

TEST_F(ReportTest, TeacherAndCentralBaselineStandBesideEachSiteThatTellsOfThem) {
  auto json = summary({site("north", 0.06, "federation helped"), site("south", 0.01, "no difference")});
  write_run(json);
  for (const char* part : {"Teacher AUC", "Central AUC", "Teacher: ", "Central: "})
    EXPECT_FALSE(has(page(), part)) << part;
  json = with_references(json);
  put(json["sites"][1], "central_auc", nullptr);
  write_run(json);
  const auto text = page();
  EXPECT_EQ(times(text, ">0.942 <small>0.922–0.962</small>"), 2u);
  EXPECT_EQ(times(text, ">0.927 <small>"), 1u);
  for (const char* part : {"data-label=\"Teacher AUC\"", "data-label=\"Central AUC\"", "Teacher: the consortium’s large",
                           "Central: the student, trained on all"})
    EXPECT_TRUE(has(text, part)) << part;
  EXPECT_EQ(first_unbalanced(text), "");
  write_run(with_references(segmented(summary({site("north", 0.06, "federation helped")})), "dice"));
  EXPECT_TRUE(has(page(), "Teacher Dice"));
}

TEST_F(ReportTest, AnUnusableSummaryIsAnErrorThatNamesFileAndKey) {
  EXPECT_TRUE(has(error(), "summary.json is not there"));
  const std::pair<std::string, std::string> cases[] = {
      {"", "is not JSON"},
      {"{\"sites\": [", "is not JSON from byte"},
      {"[1, 2]", "is not a JSON object"},
      {"{\"sites\": 5}", "sites is not a list"},
      {"{\"sites\": [{}, 5]}", "sites[1] is not an object"},
      {"{\"seed\": 1e999}", "is not JSON"},
      {"{\"a\":" + std::string(100000, '['), "nested more than"},
      {"{\"job\": \"\xff\"}", "is not JSON"}};
  for (const auto& [text, message] : cases) {
    write("summary.json", text);
    EXPECT_TRUE(has(error(), message)) << error();
    EXPECT_TRUE(has(error(), "summary.json")) << error();
  }
  std::string keys = "{\"k\": 1";
  for (int i = 0; i < 5000; ++i) keys += fmt::format(", \"{}\": 1", i);
  write("summary.json", keys + "}");
  EXPECT_TRUE(has(error(), "more than 1000 keys"));
}

TEST_F(ReportTest, ALineCutOffByACrashIsLeftOutAndSaid) {
  write_run(summary({site("north", 0.06, "federation helped")}));
  const auto first = round_line(1, {"north"}, kNobody).dump(),
             second = round_line(2, {"north"}, kNobody).dump();
  write("rounds.jsonl",
        first + "\nnonsense\n[]\n\n" + second + "\n" + second.substr(0, second.size() / 2));
  const auto run = read_run(dir_.path());
  ASSERT_TRUE(run);
  EXPECT_EQ(run->rounds.size(), 2u);
  ASSERT_EQ(run->flaws.size(), 3u);
  EXPECT_TRUE(has(run->flaws[0], "rounds.jsonl line 2 is not JSON"));
  EXPECT_TRUE(has(run->flaws[1], "rounds.jsonl line 3 is not a JSON object"));
  EXPECT_TRUE(has(run->flaws[2], "line 6 is cut off"));
  EXPECT_TRUE(has(page(), "line 6 is cut off"));
}

TEST_F(ReportTest, RoundsAndConfigurationMayBeMissing) {
  write("summary.json", summary({site("north", 0.06, "federation helped")}).dump());
  const auto text = page();
  EXPECT_TRUE(has(text, "rounds.jsonl is missing"));
  EXPECT_TRUE(has(text, "config.yaml is missing"));
}

TEST_F(ReportTest, AChangedConfigurationIsSaid) {
  write_run(summary({site("north", 0.06, "federation helped")}));
  write("config.yaml", "seed: 2\n");
  EXPECT_TRUE(has(page(), "config.yaml is another file now"));
}

TEST_F(ReportTest, ASharedModelThatTheRoundsSpoiledIsSaid) {
  auto json = summary({site("north", 0.06, "federation helped")});
  write_run(json);
  EXPECT_FALSE(has(page(), "worse after the rounds"));
  json["distilled"] = model(0.96);  // above the federated student's interval
  write_run(json);
  EXPECT_TRUE(has(page(), "worse after the rounds"));
}

TEST_F(ReportTest, SitesWithoutAVerdictAreNamed) {
  write_run(summary({site("north", 0.06, "federation helped")}));  // the rounds also asked "south"
  const auto text = page();
  EXPECT_TRUE(has(text, "Federation helped the one site; 1 sent no verdict."));
  EXPECT_TRUE(has(text, "without a verdict: <bdi>south</bdi>"));
}

TEST_F(ReportTest, AThousandRoundsOfAThousandSitesStayUsable) {
  Json sites = Json::array();
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i) {
    names.push_back(fmt::format("hospital-of-a-rather-long-name-{:04}", i));
    sites.push_back(
        site(names.back(), 0.001 * i, i == 3 ? "federation harmed" : "federation helped"));
  }
  write_run(summary(sites));
  std::string lines;
  const auto last = names.back();
  for (int i = 1; i <= 1000; ++i) {
    const bool loud = i == 417;
    if (loud) names.pop_back();
    lines += round_line(i, names, loud ? Json{{last, "disk full"}} : kNobody).dump() + "\n";
    if (loud) names.push_back(last);
  }
  write("rounds.jsonl", lines);
  const auto text = page();  // "more than 2 MiB" fails below
  EXPECT_TRUE(has(text, "Federation helped 999 of 1000 sites; 1 was harmed."));
  EXPECT_TRUE(has(text, "Shown are 200 of 1,000 sites"));
  EXPECT_TRUE(has(text, "Shown are 100 of 1,000 rounds"));
  EXPECT_TRUE(has(text, "disk full"));
  EXPECT_TRUE(has(text, "name-0003"));
  EXPECT_TRUE(has(text, "name-0999"));
  EXPECT_LT(text.size(), 1u << 20);
  EXPECT_EQ(first_unbalanced(text), "");
}

}  // namespace
}  // namespace preceptor::app
