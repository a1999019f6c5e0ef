#pragma once
#include <string>
#include <vector>

namespace preceptor::app {

/// One run of a sweep, as a point of the figure.
struct SweepPoint {
  std::string name;
  double bytes = 0;              ///< of all updates; > 0
  double metric = 0, low = 0, high = 0;  ///< on the consortium's test split, with its 95 % interval
};

/// A drawing of its own: the metric with its interval against bytes, on a logarithmic scale; each point is named. Empty for
/// no point.
std::string sweep_svg(const std::string& metric, const std::vector<SweepPoint>& points);

}  // namespace preceptor::app
