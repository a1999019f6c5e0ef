#include <algorithm>
#include <cctype>
#include <numeric>

#include "app/report.h"
#include "app/report_format.h"
#include "app/report_run.h"
#include "app/report_tables.h"

namespace preceptor::app {
namespace {

constexpr std::size_t kMaxSites = 40, kMinName = 12, kMaxName = 28, kWidth = 100;

/// ASCII, for any terminal: "0.912", "-" for nothing.
std::string plain(const Metric& metric) {
  return metric ? fmt::format("{:.3f}", std::clamp(metric->value, -1e3, 1e3)) : "-";
}

std::string fact(const char* name, const std::string& text) {
  return fmt::format("  {:<10}{}\n", name, terminal(text, kWidth - 12));
}

std::string model_facts(const Summary& s) {
  std::string text = terminal(s.student.empty() ? "not named" : s.student, 40);
  const auto own = s.federated ? s.federated->parameters : std::nullopt;
  const auto teacher = s.teacher ? s.teacher->parameters : std::nullopt;
  if (own) text += fmt::format(", {} parameters", short_count(*own));
  if (own && teacher && *own > 0 && *teacher > 0)
    text += fmt::format(" (teacher {}, {:.1f} times as many)", short_count(*teacher),
                        double(*teacher) / double(*own));
  return fact("student", text);
}

std::string test_facts(const Summary& s) {
  if (!s.federated) return "";
  auto text = "federated " + plain(s.federated->main);
  if (const auto& main = s.federated->main; main && main->interval)
    text += fmt::format(" ({}..{})", plain(Measured{main->low}), plain(Measured{main->high}));
  const std::pair<const char*, const std::optional<ModelRow>*> others[] = {
      {"distilled", &s.distilled}, {"teacher", &s.teacher}, {"central", &s.central}};
  for (const auto& [name, row] : others)
    if (*row) text += fmt::format(", {} {}", name, plain((*row)->main));
  return fact(s.segmentation ? "test Dice" : "test AUC", text);
}

std::string byte_facts(const Summary& s) {
  if (!s.bytes_up) return "";
  auto text = byte_text(*s.bytes_up);
  if (s.bytes_up_fp32 && *s.bytes_up > 0)
    text += fmt::format(" ({} as fp32, {:.1f} times as much)", byte_text(*s.bytes_up_fp32),
                        double(*s.bytes_up_fp32) / double(*s.bytes_up));
  if (s.bytes_down) text += fmt::format("; sent down {}", byte_text(*s.bytes_down));
  return fact("sent up", text);
}

std::string facts(const Summary& s) {
  auto job = s.job.empty() ? std::string("not named") : terminal(s.job, 40);
  if (s.rounds) job += ", " + plural(*s.rounds, "round", "rounds");
  if (s.partial_rounds.value_or(0) + s.void_rounds.value_or(0) > 0)
    job += fmt::format(" ({} partial, {} void)", s.partial_rounds.value_or(0),
                       s.void_rounds.value_or(0));
  if (s.seed) job += fmt::format(", seed {}", *s.seed);
  auto text = fact("job", job) + model_facts(s) + test_facts(s) + byte_facts(s);
  if (!s.skipped.empty() || s.duplicates.value_or(0) > 0)
    text += fact("data", fmt::format("{} skipped, {} left out of training",
                                     plural(s.skipped.size(), "file", "files"),
                                     plural(s.duplicates.value_or(0), "duplicate", "duplicates")));
  if (s.wall_seconds)
    text += fact(
        "took",
        duration_text(*s.wall_seconds) +
            (s.peak_rss_bytes ? ", at most " + byte_text(*s.peak_rss_bytes) + " of memory" : ""));
  if (!s.model_hash.empty()) text += fact("model", s.model_hash);
  return text;
}

std::string padded(const std::string& text, std::size_t wide, bool right) {
  const std::string gap(wide - std::min(wide, columns(text)), ' ');
  return right ? gap + text : text + gap;
}

std::string lower(std::string word) {
  word[0] = char(std::tolower(word[0]));
  return word;
}

/// Site names are cut to the room that the other columns leave.
std::string table(const Summary& s) {
  const auto models = site_models(s.sites);
  std::vector<std::string> head{"site", "train"};
  for (const auto& model : models) head.push_back(lower(model.name));
  head.push_back("verdict");
  std::vector<std::vector<std::string>> rows{std::move(head)};
  const auto shown = most_telling(s.sites, kMaxSites);
  for (const auto* row : shown) {
    const auto& site = *row;
    std::string verdict = word(site.verdict);
    if (site.difference && site.verdict != Verdict::kUntold)
      verdict += fmt::format(", {:+.3f}", std::clamp(site.difference->value, -1e3, 1e3));
    rows.push_back({site.name, site.train ? grouped(*site.train) : "-"});
    for (const auto& model : models) rows.back().push_back(plain(site.*model.metric));
    rows.back().push_back(std::move(verdict));
  }
  std::vector<std::size_t> wide(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t i = 1; i < row.size(); ++i) wide[i] = std::max(wide[i], columns(row[i]));
  const auto taken = std::accumulate(wide.begin(), wide.end(), 2 * wide.size());
  const auto room = std::clamp(kWidth - std::min(kWidth, taken), kMinName, kMaxName);
  for (auto& row : rows) {
    row[0] = terminal(row[0], room);
    wide[0] = std::max(wide[0], columns(row[0]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line = "  ";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool number = i > 0 && i + 1 < row.size();
      line += padded(row[i], wide[i], number) + "  ";
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  if (shown.size() < s.sites.size())
    text += fmt::format("  … and {} more; summary.json has them\n", s.sites.size() - shown.size());
  return text;
}

}  // namespace

std::string headline(const Summary& summary, std::size_t silent) {
  const auto count = [&](Verdict v) {
    return std::ranges::count(summary.sites, v, &SiteRow::verdict);
  };
  const auto helped = count(Verdict::kHelped), harmed = count(Verdict::kHarmed),
             untold = count(Verdict::kUntold);
  const auto total = std::ptrdiff_t(summary.sites.size());
  std::string text;
  if (total == 0)
    text = "No site has sent a verdict, so nobody can tell whether federation helped";
  else if (untold == total)
    text = total == 1 ? "The one site cannot tell whether federation helped"
                      : fmt::format("None of {} sites can tell whether federation helped", total);
  else if (total == 1)
    text = helped   ? "Federation helped the one site"
           : harmed ? "Federation harmed the one site"
                    : "Federation made no measurable difference at the one site";
  else if (helped + harmed == 0)
    text =
        fmt::format("Federation made no measurable difference at {} of {} sites; none was harmed",
                    total - untold, total);
  else
    text = fmt::format("Federation helped {} of {} sites; {}",
                       helped ? std::to_string(helped) : "none", total,
                       harmed == 0   ? "none was harmed"
                       : harmed == 1 ? "1 was harmed"
                                     : fmt::format("{} were harmed", harmed));
  if (untold > 0 && untold < total) text += fmt::format("; {} could not tell", untold);
  if (silent > 0) text += fmt::format("; {} sent no verdict", silent);
  return text + ".";
}

std::string summary_text(const nlohmann::ordered_json& json) {
  std::vector<std::string> flaws;
  const auto summary = to_summary(json, flaws);
  if (!summary) return summary.error().message + "\n";
  auto text = headline(*summary) + "\n";
  if (summary->completed == false) text += fact("given up", summary->ended_because);
  text += facts(*summary);
  if (!summary->sites.empty()) text += "\n" + table(*summary);
  return text;
}

}  // namespace preceptor::app
