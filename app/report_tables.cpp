#include "app/report_tables.h"

#include <algorithm>
#include <cmath>

#include "app/report_format.h"

namespace preceptor::app {
namespace {

constexpr std::size_t kNameLength = 80, kReasonLength = 200;

/// A foreign name: kept apart from the reading direction around it.
std::string name_html(const std::string& name) {
  return "<bdi>" + html(name, kNameLength) + "</bdi>";
}

/// "0.931" with "0.917–0.944" below.
std::string estimate(const Metric& m) {
  if (!m) return "<span class=\"none\">–</span>";
  if (!m->interval) return decimal(m);
  return fmt::format("{} <small>{}–{}</small>", decimal(m), decimal(m->low), decimal(m->high));
}

/// How a cell is set: its column may hold sentences, and on a phone a long one takes the whole
/// line.
std::string cell_class(std::string_view head, std::string_view cell) {
  if (head == "Verdict") return " class=\"told\"";
  if (head != "Accepted" && head != "Missing, and why") return "";
  return cell.find('<') == cell.npos ? " class=\"text\"" : " class=\"text wide\"";
}

class Table {
 public:
  Table(const char* kind, const std::string& caption, std::vector<std::string> heads)
      : heads_(std::move(heads)) {
    out_ = fmt::format(
        "<table class=\"{}\" role=\"table\"><caption>{}</caption>\n<thead role=\"rowgroup\"><tr "
        "role=\"row\">",
        kind, caption);
    for (const auto& head : heads_)
      out_ += fmt::format("<th scope=\"col\" role=\"columnheader\">{}</th>", head);
    out_ += "</tr></thead>\n<tbody role=\"rowgroup\">\n";
  }
  /// The first cell is the row's header. Cells are HTML.
  void add(const std::vector<std::string>& cells) {
    out_ += "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">" + cells[0] + "</th>";
    for (std::size_t i = 1; i < cells.size(); ++i)
      out_ += fmt::format("<td role=\"cell\"{} data-label=\"{}\"><div>{}</div></td>",
                          cell_class(heads_[i], cells[i]), heads_[i], cells[i]);
    out_ += "</tr>\n";
  }
  std::string str() const { return out_ + "</tbody></table>\n"; }

 private:
  std::vector<std::string> heads_;
  std::string out_;
};

std::string verdict_html(Verdict verdict) {
  static constexpr const char* kClasses[] = {"good", "even", "bad", "even"};
  static constexpr const char* kSymbols[] = {"▲", "●", "▼", "?"};
  return fmt::format("<span class=\"verdict {}\"><span aria-hidden=\"true\">{}</span> {}</span>",
                     kClasses[int(verdict)], kSymbols[int(verdict)], word(verdict));
}

std::string difference_html(const SiteRow& site) {
  if (!site.difference || site.verdict == Verdict::kUntold) return "<span class=\"none\">–</span>";
  const auto& d = *site.difference;
  auto text = "<b>" + signed_decimal(d.value) + "</b>";
  if (site.metric == "accuracy") text += " " + html(site.metric, 20);
  if (d.interval)
    text += fmt::format(" <small>{} to {}</small>", signed_decimal(d.low), signed_decimal(d.high));
  if (site.p_value) text += " <small>" + html(p_text(*site.p_value)) + "</small>";
  return text;
}

std::string outcome_html(const std::string& outcome) {
  if (outcome == "complete") return "<span class=\"whole\">complete</span>";
  const char* symbol = outcome == "partial" ? "◐" : outcome == "void" ? "○" : "?";
  return fmt::format("<b class=\"whole {}\"><span aria-hidden=\"true\">{}</span> {}</b>",
                     outcome == "partial" ? "warn" : "bad", symbol,
                     outcome.empty() ? "not told" : html(outcome, 20));
}

std::string rest(std::size_t count, std::size_t shown) {
  return count > shown ? fmt::format(" and {} more", grouped(count - shown)) : "";
}

/// Names are told where they tell something: not when every site of the run is in.
std::string accepted_html(const RoundRow& round, std::size_t all_sites) {
  if (round.missing_count == 0 && round.accepted_count == all_sites && all_sites > 1)
    return fmt::format("all {}", all_sites);
  std::string names;
  for (const auto& name : round.accepted) names += (names.empty() ? "" : ", ") + name_html(name);
  const auto count =
      fmt::format("{} of {}", round.accepted_count, round.accepted_count + round.missing_count);
  if (names.empty()) return count;
  return fmt::format("{} <small>{}{}</small>", count, names,
                     rest(round.accepted_count, round.accepted.size()));
}

std::string missing_html(const RoundRow& round) {
  if (round.missing_count == 0) return "nobody";
  std::string text;
  for (const auto& [site, why] : round.missing)
    text += fmt::format("<div><b>{}</b>: {}</div>", name_html(site),
                        why.empty() ? "no reason given" : html(why, kReasonLength));
  const auto more = rest(round.missing_count, round.missing.size());
  return more.empty() ? text : text + "<div>" + more + "</div>";
}

}  // namespace

std::vector<const SiteRow*> most_telling(const std::vector<SiteRow>& sites, std::size_t limit) {
  std::vector<const SiteRow*> chosen;
  for (const auto& site : sites) chosen.push_back(&site);
  if (chosen.size() <= limit) return chosen;
  std::ranges::stable_sort(chosen, [](const SiteRow* a, const SiteRow* b) {
    const auto rank = [](const SiteRow* s) {
      return std::pair(s->verdict != Verdict::kHarmed,
                       s->difference ? -std::abs(s->difference->value) : 1.0);
    };
    return rank(a) < rank(b);
  });
  chosen.resize(limit);
  return chosen;
}

std::string verdict_table(const std::vector<const SiteRow*>& sites, const std::vector<SiteModel>& models,
                          const std::string& metric) {
  std::vector<std::string> heads{"Site", "Train images"};
  for (const auto& model : models) heads.push_back(fmt::format("{} {}", model.name, metric));
  heads.insert(heads.end(), {"Chosen", "Difference", "Verdict"});
  Table table("cards", "Verdict of each site, measured on its own test images", std::move(heads));
  for (const auto* s : sites) {
    std::vector<std::string> cells{name_html(s->name), grouped(s->train)};
    for (const auto& model : models) cells.push_back(estimate(s->*model.metric));
    cells.insert(cells.end(), {s->chosen.empty() ? "–" : html(s->chosen, 20), difference_html(*s),
                               verdict_html(s->verdict)});
    table.add(cells);
  }
  return table.str();
}

std::string model_table(const Summary& summary) {
  Table table("cards", "Models on the test images of all sites together",
              summary.segmentation
                  ? std::vector<std::string>{"Model", "Dice", "IoU", "HD95 (pixels)", "Parameters"}
                  : std::vector<std::string>{"Model", "AUC", "Accuracy", "Sensitivity", "Specificity",
                                             "Calibration error (ECE)", "Parameters"});
  const auto add = [&](const char* name, const char* what, const std::optional<ModelRow>& row) {
    if (!row) return;
    const auto title = fmt::format("{} <small>{}</small>", name, what);
    const auto parameters = row->parameters ? short_count(*row->parameters) : "–";
    if (summary.segmentation)
      table.add({title, estimate(row->main), estimate(row->iou), estimate(row->hd95), parameters});
    else
      table.add({title, estimate(row->main), estimate(row->accuracy), estimate(row->sensitivity),
                 estimate(row->specificity), estimate(row->ece), parameters});
  };
  add("Teacher", "large, stays with the consortium", summary.teacher);
  add("Distilled student", "before the first round", summary.distilled);
  add("Central baseline", "all images in one place, to compare", summary.central);
  add("Federated student", "after the last round", summary.federated);
  return table.str();
}

std::string byte_table(const Summary& s) {
  Table table("narrow", "Bytes on the wire over the whole run",
              {"Direction", "Sent", "As float32", "Ratio"});
  const bool ratio = s.bytes_up && s.bytes_up_fp32 && *s.bytes_up > 0;
  const auto text = [](const std::optional<std::uint64_t>& bytes) {
    return bytes ? byte_text(*bytes) : "–";
  };
  table.add({"Up <small>from the sites</small>", text(s.bytes_up), text(s.bytes_up_fp32),
             ratio ? decimal(double(*s.bytes_up_fp32) / double(*s.bytes_up), 1) + "×" : "–"});
  table.add({"Down <small>to the sites</small>", text(s.bytes_down), "–", "–"});
  return table.str();
}

std::vector<const RoundRow*> most_telling(const std::vector<RoundRow>& rounds, std::size_t limit) {
  const auto loud = [](const RoundRow& r) {
    return r.outcome != "complete" || r.missing_count > 0;
  };
  std::vector<bool> keep(rounds.size());
  std::size_t room = std::min(limit, rounds.size());
  const auto take = [&](std::size_t i) {
    if (room > 0 && !keep[i]) keep[i] = true, --room;
  };
  if (!rounds.empty()) take(rounds.size() - 1);
  for (std::size_t i = 0; i < rounds.size(); ++i)
    if (loud(rounds[i])) take(i);
  for (std::size_t i = rounds.size(); i-- > 0;) take(i);
  std::vector<const RoundRow*> chosen;
  for (std::size_t i = 0; i < rounds.size(); ++i)
    if (keep[i]) chosen.push_back(&rounds[i]);
  return chosen;
}

std::string round_table(const std::vector<const RoundRow*>& rounds, std::size_t all_sites,
                        const std::string& metric) {
  Table table("cards rounds", "Rounds, and who took part",
              {"Round", "Outcome", "Accepted", "Missing, and why", "Images", "Train loss",
               "Validation " + metric});
  for (const auto* r : rounds)
    table.add({decimal(r->number, 0), outcome_html(r->outcome), accepted_html(*r, all_sites),
               missing_html(*r), grouped(r->samples),
               r->train_loss && r->accepted_count > 0 ? decimal(*r->train_loss) : "–",
               estimate(r->main)});
  return table.str();
}

std::string fidelity_table(const RoundRow& first, const RoundRow& last) {
  Table table("cards", "Stages of the update codec, and what each left",
              {"Stage", "Cosine, round " + decimal(first.number, 0), "Norm ratio, round " + decimal(first.number, 0),
               "Cosine, round " + decimal(last.number, 0), "Norm ratio, round " + decimal(last.number, 0)});
  const auto figure = [](const std::optional<double>& value) { return value ? decimal(*value) : std::string("–"); };
  for (std::size_t i = 0; i < first.fidelity.size(); ++i) {
    const auto& then = first.fidelity[i];
    const auto now = i < last.fidelity.size() ? last.fidelity[i] : FidelityRow{};
    table.add({html(then.stage, 40), figure(then.cosine), figure(then.norm_ratio), figure(now.cosine), figure(now.norm_ratio)});
  }
  return table.str();
}

std::string text_list(const std::vector<std::string>& texts, std::size_t limit) {
  std::string out = "<ul>\n";
  for (std::size_t i = 0; i < std::min(limit, texts.size()); ++i)
    out += "<li>" + html(texts[i], 300) + "</li>\n";
  if (texts.size() > limit)
    out += fmt::format("<li>… and {} more</li>\n", grouped(texts.size() - limit));
  return out + "</ul>\n";
}

}  // namespace preceptor::app
