#pragma once
#include <string>
#include <vector>

#include "app/report_run.h"

/// The page's drawings: inline SVG of some 360 units' width, so that its text is as large as the
/// page's on a phone. Colours are classes that the page's style sheet fills in, light and dark.
namespace preceptor::app {

/// Difference chosen − local with its interval, a line a site; shape and colour tell the verdict.
/// Sites without a difference are passed over; empty when none has one.
std::string forest_svg(const std::vector<const SiteRow*>& sites);

struct CurvePoint {
  double x = 0, y = 0, low = 0, high = 0;
  bool interval = false;  ///< low and high are there: drawn as a band
  bool whole = true;      ///< false: a hollow dot, for a round in which somebody was missing
};
/// A curve over rounds. id: unique on the page. At most some 300 points are drawn: of a longer
/// curve, the least and the greatest of each stretch. Empty for no point.
std::string curve_svg(const std::string& id, const std::string& title,
                      std::vector<CurvePoint> points);

/// Two bars to one scale: what was sent, and what float32 would have been.
std::string bytes_svg(std::uint64_t sent, std::uint64_t fp32);

}  // namespace preceptor::app
