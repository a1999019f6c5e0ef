// What a report consists of: its headline, the terminal's table, numbers, curves.
#include <gtest/gtest.h>

#include <algorithm>

#include "app/report.h"
#include "app/report_format.h"
#include "app/report_svg.h"
#include "tests/app/made_run.h"

namespace preceptor::app {
namespace {

TEST(Report, HeadlineCountsEveryKindOfVerdict) {
  const auto said = [](std::vector<Verdict> verdicts) {
    Summary s;
    for (const auto v : verdicts) s.sites.emplace_back().verdict = v;
    return headline(s);
  };
  using enum Verdict;
  EXPECT_EQ(said({kHelped, kHelped, kHelped, kSame}),
            "Federation helped 3 of 4 sites; none was harmed.");
  EXPECT_EQ(said({kHelped, kHarmed}), "Federation helped 1 of 2 sites; 1 was harmed.");
  EXPECT_EQ(said({kHarmed, kHarmed, kSame}), "Federation helped none of 3 sites; 2 were harmed.");
  EXPECT_EQ(said({kSame, kSame}),
            "Federation made no measurable difference at 2 of 2 sites; none was harmed.");
  EXPECT_EQ(said({kHelped, kUntold}),
            "Federation helped 1 of 2 sites; none was harmed; 1 could not tell.");
  EXPECT_EQ(said({kHarmed}), "Federation harmed the one site.");
  EXPECT_EQ(said({kUntold}), "The one site cannot tell whether federation helped.");
}

TEST(Report, ASiteWithoutTestImagesCannotTell) {
  auto json = summary({site("north", 0, "no difference")});
  json["sites"][0]["metric"] = "";  // as node/verdict.cpp leaves it
  std::vector<std::string> flaws;
  EXPECT_EQ(to_summary(json, flaws)->sites[0].verdict, Verdict::kUntold);
}

TEST(Report, TerminalTableIsAlignedAndNarrow) {
  const auto text = summary_text(
      summary({site("north", 0.06, "federation helped"),
               site("Universitätsklinikum of an endless name and then some", 0.01, "no difference"),
               site("西京病院", -0.02, "federation harmed", nullptr)}));
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    lines.push_back(text.substr(at, text.find('\n', at) - at));
  for (const auto& line : lines) EXPECT_LE(columns(line), 100u) << line;
  const auto head =
      std::ranges::find_if(lines, [](const auto& l) { return l.starts_with("  site"); });
  ASSERT_EQ(lines.end() - head, 4);
  const auto column_of = [](const std::string& line, const std::string& part) {
    return columns(line.substr(0, line.find(part)));
  };
  const auto start = column_of(*head, "verdict"), train_end = column_of(*head, "train") + 5;
  const char* words[] = {"helped, +0.060", "no difference, +0.010", "harmed, -0.020"};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(column_of(head[i + 1], words[i]), start) << text;
    EXPECT_EQ(column_of(head[i + 1], "1,200") + 5, train_end) << text;
  }
  EXPECT_GE(head - lines.begin(), 6) << "facts stand above the table";
  EXPECT_LE(head - lines.begin(), 10);
}

TEST(Report, TerminalTableOfASimulationCutsNamesToStayNarrow) {
  const auto text = summary_text(with_references(summary(
      {site("Universitätsklinikum of an endless name and then some", -0.01, "no difference"), site("north", 0.06, "federation helped")})));
  EXPECT_TRUE(has(text, "train  teacher  central  local  global  personalised  verdict")) << text;
  EXPECT_EQ(times(text, "  0.942    0.927  "), 2u) << text;
  EXPECT_TRUE(has(text, "Universitätsk")) << text;
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    EXPECT_LE(columns(text.substr(at, text.find('\n', at) - at)), 100u) << text;
}

TEST(Report, NumbersAreWrittenForReaders) {
  EXPECT_EQ(signed_decimal(-0.0004), "0.000");
  EXPECT_EQ(signed_decimal(-0.02), "−0.020");
  EXPECT_EQ(decimal(Metric{}), "–");
  EXPECT_LT(decimal(1e300).size(), 12u);
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(123), "123");
  EXPECT_EQ(byte_text(999), "999 B");
  EXPECT_EQ(byte_text(5312044), "5.3 MB");
  EXPECT_EQ(duration_text(3725), "1 h 2 min");
  EXPECT_EQ(p_text(0.0004), "p < 0.001");
  EXPECT_EQ(p_text(0.43), "p = 0.43");
}

TEST(Report, ALongCurveIsThinnedButKeepsItsPeak) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 100000; ++i)
    points.push_back({double(i), i == 77777 ? 9.0 : 1.0, 0, 0, false, true});
  const auto svg = curve_svg("c", "title", points);
  EXPECT_LT(svg.size(), 20000u);
  EXPECT_TRUE(has(svg, " 20.6")) << "the peak stands 8 % of the range below the frame's top";
}

TEST(Report, OddCurvesAreDrawn) {
  EXPECT_EQ(curve_svg("c", "title", {}), "");
  for (const double y : {0.0, -1e300, 1e300, 1e-300, 5.0})
    for (const double x : {0.0, -7.0, 1e18, 1e300}) {
      const auto svg =
          curve_svg("c", "title", {{x, y, y, y, true, true}, {x, y, y, y, true, true}});
      EXPECT_FALSE(has(svg, "nan") || has(svg, "inf")) << x << " " << y;
      EXPECT_LT(svg.size(), 8000u) << svg;
    }
}

}  // namespace
}  // namespace preceptor::app
