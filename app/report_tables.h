#pragma once
#include <string>
#include <vector>

#include "app/report_run.h"

/// The page's tables, as HTML. A narrow screen shows each row as a card, so every cell carries its
/// column's name, and the roles that such styling would take from it.
namespace preceptor::app {

/// At most `limit` sites: all in the file's order, or of more the harmed first, then those with the
/// largest difference.
std::vector<const SiteRow*> most_telling(const std::vector<SiteRow>& sites, std::size_t limit);

/// A column for each of the models; metric: what its figures are, "AUC" or "Dice".
std::string verdict_table(const std::vector<const SiteRow*>& sites, const std::vector<SiteModel>& models,
                          const std::string& metric);
std::string model_table(const Summary& summary);
std::string byte_table(const Summary& summary);
/// At most `limit` rounds: all, or of more those in which somebody was missing first, and the last.
std::vector<const RoundRow*> most_telling(const std::vector<RoundRow>& rounds, std::size_t limit);
/// all_sites: how many the run knows.
std::string round_table(const std::vector<const RoundRow*>& rounds, std::size_t all_sites,
                        const std::string& metric);

/// Stages of the update codec: what each left of the updates in the first and the last round that tell.
std::string fidelity_table(const RoundRow& first, const RoundRow& last);

/// A list of at most `limit` foreign texts, and how many more there are.
std::string text_list(const std::vector<std::string>& texts, std::size_t limit);

}  // namespace preceptor::app
