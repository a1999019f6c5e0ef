#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

/// The best student for a box, by measurement.
namespace preceptor::deploy {

/// What a box and a clinic allow.
struct Budget {
  double max_milliseconds = std::numeric_limits<double>::infinity();  ///< p50 of one image on one thread
  double max_mib = std::numeric_limits<double>::infinity();           ///< of the model file
  double min_metric = 0;                                              ///< AUC or Dice at least
};

/// A model as it was measured, and what choose() found.
struct Candidate {
  std::string name;
  double metric = 0, milliseconds = 0, mib = 0;
  bool frontier = false;     ///< no other is at least as good in all three figures and better in one (Pareto)
  std::string why_not = "";  ///< the first rule of the budget that it breaks; "" if it fits
};

/// Marks every candidate; returns the index of the best that fits: the highest metric, then the fastest, then the
/// smallest, then the first. nullopt: none fits.
std::optional<std::size_t> choose(std::vector<Candidate>& candidates, const Budget& budget);

}  // namespace preceptor::deploy
