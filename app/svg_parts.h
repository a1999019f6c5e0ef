#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

/// What every drawing is made of.
namespace preceptor::app {

/// Values to pixels.
struct Scale {
  double from, to, low, high;
  double operator()(double value) const {
    return from + (to - from) * (std::clamp(value, low, high) - low) / (high - low);
  }
};

/// Round steps of 1, 2 or 5 times a power of ten, about `count` of them.
struct Ticks {
  double step;
  int digits;
  std::vector<double> at;
  Ticks(double low, double high, int count, bool whole = false) {
    const double rough = (high - low) / count, power = std::pow(10, std::floor(std::log10(rough)));
    step = power * (rough > 5 * power ? 10 : rough > 2 * power ? 5 : rough > power ? 2 : 1);
    if (whole) step = std::max(step, 1.0);
    digits = std::clamp(int(std::ceil(-std::log10(step) - 1e-9)), 0, 6);
    const double first = std::ceil(low / step - 1e-9);
    for (int i = 0; i < 20 && (first + i) * step <= high + step * 1e-9; ++i)
      at.push_back((first + i) * step);
  }
};

/// Room around the values, and never an empty range.
inline void widen(double& low, double& high, double least) {
  const double room = std::max((high - low) * 0.08, (least - (high - low)) / 2);
  low -= room;
  high += room;
}

inline std::string line(const char* kind, double x1, double y1, double x2, double y2) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>",
                     kind, x1, y1, x2, y2);
}

/// `text` is HTML already.
inline std::string label(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>", x, y, anchor,
                     text);
}

}  // namespace preceptor::app
