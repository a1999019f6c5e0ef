#include "app/report_page.h"

#include <algorithm>

#include "app/page.h"
#include "app/report_format.h"
#include "app/report_svg.h"
#include "app/report_tables.h"

namespace preceptor::app {
namespace {

constexpr std::size_t kMaxSites = 200, kMaxForest = 40, kMaxRounds = 100, kMaxList = 50;
constexpr std::size_t kMaxConfig = 256 << 10;  ///< characters
constexpr double kSignificance = 0.05;         ///< of node/verdict.h

std::string of_all(std::size_t shown, std::size_t all, const char* things, const char* which) {
  if (shown >= all) return "";
  return note(fmt::format("Shown are {} of {} {}: {}. The run directory holds all.", grouped(shown),
                          grouped(all), things, which));
}

std::string lead(const Summary& s) {
  std::string text;
  if (s.federated && s.federated->main) {
    const auto& main = *s.federated->main;
    text += fmt::format("The federated student reaches {} of <b>{}</b>",
                        s.segmentation ? "a Dice" : "an AUC", decimal(main.value));
    if (main.interval) text += fmt::format(" ({}–{})", decimal(main.low), decimal(main.high));
    text += " on the test images of all sites";
    if (s.teacher && s.teacher->main)
      text += fmt::format("; its teacher {}", decimal(s.teacher->main));
    const auto small = s.federated->parameters,
               large = s.teacher ? s.teacher->parameters : std::nullopt;
    if (small && large && *small > 0 && *large > *small)
      text += fmt::format(", with <b>{}×</b> as many parameters",
                          decimal(double(*large) / double(*small), 1));
    if (s.distilled && s.distilled->main)
      text += fmt::format("; before the first round it had {}", decimal(s.distilled->main));
    text += ". ";
  }
  if (s.bytes_up && s.bytes_up_fp32 && *s.bytes_up > 0 && *s.bytes_up_fp32 > *s.bytes_up)
    text += fmt::format("The sites sent {} up, <b>{}×</b> less than uncompressed updates.",
                        byte_text(*s.bytes_up),
                        decimal(double(*s.bytes_up_fp32) / double(*s.bytes_up), 1));
  return text.empty() ? "" : "<p class=\"lead\">" + text + "</p>\n";
}

/// The verdicts compare with local training; a shared model that the rounds spoiled can hide there.
bool spoiled(const Summary& s) {
  if (!s.federated || !s.distilled || !s.federated->main || !s.distilled->main) return false;
  const auto& after = *s.federated->main;
  return after.interval && after.high < s.distilled->main->value;
}

std::string header(const Run& run) {
  const auto& s = run.summary;
  std::string kicker = "Preceptor run report";
  if (!s.job.empty()) kicker += " · <bdi>" + html(s.job, 100) + "</bdi>";
  if (s.rounds) kicker += " · " + plural(*s.rounds, "round", "rounds");
  if (!s.sites.empty()) kicker += " · " + plural(s.sites.size(), "site", "sites");
  if (!s.student.empty()) kicker += " · " + html(s.student, 60);
  auto text = fmt::format("<header>\n<p class=\"kicker\">{}</p>\n<h1>{}</h1>\n{}", kicker,
                          html(headline(s, run.silent.size())), lead(s));
  if (s.completed == false)
    text += fmt::format(
        "<p class=\"alert bad\"><b>The job was given up:</b> {}</p>\n",
        s.ended_because.empty() ? "no reason was recorded" : html(s.ended_because, 500));
  if (spoiled(s))
    text += fmt::format(
        "<p class=\"alert\"><b>The shared model is worse after the rounds than before them.</b> "
        "Its interval lies below the distilled student’s {}; look at the curves before using it "
        "as it is.</p>\n",
        main_metric(s));
  if (!run.flaws.empty())
    text += fmt::format(
        "<div class=\"alert\"><b>Parts of the record could not be read;</b> what follows goes "
        "without them.\n{}</div>\n",
        text_list(run.flaws, 25));
  return text + "</header>\n";
}

std::string verdicts(const Run& run) {
  const auto& sites = run.summary.sites;
  std::string text;
  if (sites.empty()) {
    text = note("No verdict has arrived.");
  } else {
    const auto shown = most_telling(sites, kMaxSites);
    const auto models = site_models(sites);
    text = verdict_table(shown, models, main_metric(run.summary)) +
           of_all(shown.size(), sites.size(), "sites",
                  "those that were harmed first, then by size of the difference");
    std::string small;
    for (const auto& model : models) small += fmt::format("{}: {}. ", model.name, model.what);
    text += note(small +
                 "The site’s validation images choose between the last two; the difference is chosen "
                 "− local on its test images, with a 95&nbsp;% interval by paired bootstrap. Helped "
                 "or harmed: p &lt; 0.05.");
    text += note(
        run.summary.segmentation
            ? "Dice: overlap of what is drawn and what is there, twice the common area over the sum "
              "of both, as a mean over images; 1 is faultless."
            : "AUC: the chance that the model ranks an image with the finding above one without; 0.5 "
              "is a coin toss, 1 is faultless.");
    const auto untold = [](const SiteRow& r) { return !r.local || !r.global || !r.personalised; };
    if (std::ranges::any_of(shown, [&](const auto* r) { return untold(*r); }))
      text += note(
          run.summary.segmentation ? "– : not defined, the site has no test image."
          : "– : not defined. A test split that holds one class only, or no image, cannot tell an "
          "AUC; accuracy is compared instead where there are images.");
    if (sites.size() >= 20)
      text += note(fmt::format(
          "Of {} sites tested at p &lt; 0.05, about {} would show a difference by chance alone.",
          grouped(sites.size()), decimal(double(sites.size()) * kSignificance, 0)));
  }
  if (!run.silent.empty()) {
    std::string names;
    for (std::size_t i = 0; i < std::min(run.silent.size(), kMaxList); ++i)
      names += (i ? ", " : "") + ("<bdi>" + html(run.silent[i], 80) + "</bdi>");
    if (run.silent.size() > kMaxList)
      names += fmt::format(" and {} more", grouped(run.silent.size() - kMaxList));
    text += fmt::format("<p>Asked in a round, but without a verdict: {}.</p>\n", names);
  }
  return section("Did federation help each site?", text);
}

std::string forest(const Run& run) {
  const auto shown = most_telling(run.summary.sites, kMaxForest);
  const auto svg = forest_svg(shown);
  if (svg.empty()) return "";
  return section("Difference to training alone",
                 "<figure>" + svg +
                     fmt::format("\n<figcaption>Chosen federated model minus local model: {}, "
                                 "95&nbsp;% interval. ",
                                 run.summary.segmentation ? "Dice"
                                                          : "AUC (accuracy where AUC is not defined)") +
                     "▲&nbsp;helped, ●&nbsp;no difference, ▼&nbsp;harmed."
                     "</figcaption></figure>\n" +
                     of_all(shown.size(), run.summary.sites.size(), "sites",
                            "those that were harmed first, then by size of the difference"));
}

std::string models(const Summary& s) {
  if (!s.teacher && !s.distilled && !s.central && !s.federated) return "";
  auto text = model_table(s);
  std::string classes;
  for (std::size_t i = 0; i < std::min(s.classes.size(), kMaxList); ++i)
    classes += (i ? ", " : "") + html(s.classes[i], 60);
  std::string small = "Below each value its 95&nbsp;% bootstrap interval. ";
  if (s.segmentation)
    small += fmt::format(
        "Classes: {}; figures are means over images of means over the classes but the first. IoU: "
        "common area over joint area. HD95: the 95th percentile of the distances between both "
        "outlines, 0 is best.",
        classes);
  else if (s.classes.size() == 2)
    small += fmt::format(
        "Sensitivity and specificity are of “{}” against “{}”, at a threshold of one half. ",
        html(s.classes[1], 60), html(s.classes[0], 60));
  else if (!classes.empty())
    small +=
        fmt::format("Classes: {}; AUC, sensitivity and specificity are means over them. ", classes);
  if (!s.segmentation)
    small +=
        "ECE: expected calibration error, how far the stated confidence is from the share that is "
        "right; 0 is best.";
  if (s.federated && s.federated->images)
    small += fmt::format(" Test images: {}.", grouped(*s.federated->images));
  if (s.macs)
    small += fmt::format(" One image costs the student {} multiply-adds.", short_count(*s.macs));
  text += note(small);
  const auto none = [](const std::optional<ModelRow>& r) {
    return r && !r->main;
  };
  if (none(s.teacher) || none(s.distilled) || none(s.central) || none(s.federated))
    text += note(
        s.segmentation ? "– : not measured."
                       : "– : not measured, or not defined: a test split that holds one class only "
                         "cannot tell an AUC.");
  return section("How good are the models?", text);
}

std::string curves(const Run& run) {
  std::vector<CurvePoint> main, loss;
  for (const auto& r : run.rounds) {
    const bool whole = r.outcome == "complete";
    if (r.main)
      main.push_back({r.number, r.main->value, r.main->low, r.main->high, r.main->interval, whole});
    if (r.train_loss && r.accepted_count > 0 && r.outcome != "void")
      loss.push_back({r.number, *r.train_loss, 0, 0, false, whole});
  }
  const auto curve = [](const char* id, const char* title, std::vector<CurvePoint> points) {
    const auto svg = curve_svg(id, title, std::move(points));
    return svg.empty()
               ? ""
               : fmt::format("<figure><figcaption>{}</figcaption>{}</figure>\n", title, svg);
  };
  const auto text = curve("main", run.summary.segmentation ? "Dice on the consortium’s validation images"
                                                    : "AUC on the consortium’s validation images",
                          std::move(main)) +
                    curve("loss", "Training loss of the accepted sites", std::move(loss));
  if (text.empty()) return "";
  const bool lossy =
      std::ranges::any_of(run.rounds, [](const auto& r) { return r.outcome != "complete"; });
  return section(
      "How did the rounds go?",
      "<div class=\"curves\">\n" + text + "</div>\n" +
          note(
              std::string("Band: 95&nbsp;% interval.") +
              (lossy ? " Hollow dots: partial or void rounds, in which a site was missing." : "")));
}

/// A stage that leaves less than this of an update's direction destroys what the sites learn.
constexpr double kDestroyed = 0.1;

std::string fidelity(const Run& run) {
  const RoundRow *first = nullptr, *last = nullptr;
  for (const auto& round : run.rounds) {
    if (round.fidelity.empty()) continue;
    if (!first) first = &round;
    last = &round;
  }
  if (!first) return "";
  std::string text;
  for (const auto& stage : first->fidelity)
    if (stage.cosine && *stage.cosine < kDestroyed)
      text += fmt::format("<p class=\"alert\"><b>Stage {} of the update codec destroys the updates:</b> the cosine with the true "
                          "ones is {} in round {:.0f}.</p>\n", html(stage.stage, 40), decimal(*stage.cosine), first->number);
  return section("What did the codec leave of the updates?",
                 text + fidelity_table(*first, *last) +
                     note("Each stage with all before it, against the true update of a site; mean over sites. Cosine 1 and norm "
                          "ratio 1: nothing was lost. What error feedback gives back later is not counted."));
}

std::string bytes(const Summary& s) {
  if (!s.bytes_up && !s.bytes_down) return "";
  auto text = byte_table(s);
  if (s.bytes_up && s.bytes_up_fp32)
    text = "<figure>" + bytes_svg(*s.bytes_up, *s.bytes_up_fp32) + "</figure>\n" + text;
  return section(
      "What went over the wire?",
      text + note("Every byte of every frame is counted. Up go compressed updates, counts and "
                  "verdicts; down goes the model of each round. "
                  "No image travels. Float32: the accepted updates without compression."));
}

std::string rounds(const Run& run) {
  if (run.rounds.empty()) return "";
  const auto shown = most_telling(run.rounds, kMaxRounds);
  const auto count = [&](const char* outcome) {
    return std::ranges::count(run.rounds, outcome, &RoundRow::outcome);
  };
  const auto partial = count("partial"), empty = count("void");
  auto text = fmt::format("<p>{} of {} complete", count("complete"),
                          plural(run.rounds.size(), "round", "rounds"));
  if (partial > 0) text += fmt::format(", {} partial (a quorum answered, not all)", partial);
  if (empty > 0) text += fmt::format(", {} void (no quorum: the model stayed as it was)", empty);
  text += ".</p>\n" + round_table(shown, run.summary.sites.size() + run.silent.size(),
                                    main_metric(run.summary)) +
          of_all(shown.size(), run.rounds.size(), "rounds",
                 "those in which a site was missing, and the last ones");
  return section("Who took part?", text);
}

std::string data_notes(const Summary& s) {
  std::string text = fmt::format(
      "<p>{} skipped as unreadable; {} that stood in more than one split {} left out of training.",
      plural(s.skipped.size(), "file", "files"),
      plural(s.duplicates.value_or(0), "image", "images"), s.duplicates == 1 ? "was" : "were");
  if (s.consortium_train)
    text += fmt::format(" The consortium itself holds {}.",
                        plural(*s.consortium_train, "training image", "training images"));
  text += "</p>\n";
  if (!s.notes.empty()) text += "<h3>Notes</h3>\n" + text_list(s.notes, kMaxList);
  if (!s.skipped.empty())
    text += "<h3>Skipped files</h3>\n" + text_list(s.skipped, kMaxList) +
            note("File names can tell of patients: look them over before this page is passed on.");
  return section("Data", text);
}

std::string provenance(const Run& run) {
  const auto& s = run.summary;
  std::string rows;
  const auto add = [&](const char* name, const std::string& value) {
    rows += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, value);
  };
  const auto code = [](const std::string& text) {
    return text.empty() ? "not recorded" : "<code>" + html(text, 128) + "</code>";
  };
  std::string check;
  if (run.config_matches)
    check = *run.config_matches ? " <span class=\"good\">✓ that of config.yaml</span>"
                                : " <b class=\"bad\">✗ config.yaml is another file now</b>";
  add("Configuration, SHA-256", code(s.config_hash) + check);
  add("Model, SHA-256", code(s.model_hash));
  add("Seed", s.seed ? std::to_string(*s.seed) : "not recorded");
  add("Program", s.version.empty() ? "version not recorded" : "preceptor " + html(s.version, 60));
  if (s.threads) add("Sites at a time", grouped(*s.threads) + ", in a simulation on one machine");
  add("Wall time", s.wall_seconds ? duration_text(*s.wall_seconds) : "not recorded");
  add("Peak memory", s.peak_rss_bytes ? byte_text(*s.peak_rss_bytes) : "not recorded");
  add("Ended because", s.ended_because.empty() ? "not recorded" : html(s.ended_because, 500));
  auto text = "<dl>\n" + rows + "</dl>\n";
  if (!run.config.empty()) {
    text += "<details><summary>Resolved configuration (config.yaml)</summary>\n<pre>" +
            html(run.config, kMaxConfig) + "</pre></details>\n";
  }
  return section("Where does this come from?", text);
}

}  // namespace

std::string page_html(const Run& run) {
  const auto& s = run.summary;
  return document((s.job.empty() ? "" : html(s.job, 100) + " · ") + "Preceptor run report",
                  header(run) + verdicts(run) + forest(run) + models(s) + curves(run) + bytes(s) + fidelity(run) + rounds(run) +
                      data_notes(s) + provenance(run),
                  "Written by <code>preceptor report</code> from summary.json, rounds.jsonl and config.yaml of the run directory. "
                  "A measure of models, not a medical device.");
}

}  // namespace preceptor::app
