#include "app/report_svg.h"

#include "app/report_format.h"
#include "app/svg_parts.h"

namespace preceptor::app {
namespace {

constexpr double kWidth = 360;

std::string open(const std::string& id, double height, const std::string& title,
                 const std::string& description) {
  return fmt::format(
      "<svg viewBox=\"0 0 {0} {1:.0f}\" role=\"img\" aria-labelledby=\"{2}-t {2}-d\">"
      "<title id=\"{2}-t\">{3}</title><desc id=\"{2}-d\">{4}</desc>\n",
      kWidth, height, id, html(title), html(description));
}

std::string marker(Verdict verdict, double x, double y) {
  switch (verdict) {
    case Verdict::kHelped:
      return fmt::format("<path class=\"good\" d=\"M{:.1f} {:.1f}l5.5 9.5h-11z\"/>", x, y - 5.7);
    case Verdict::kHarmed:
      return fmt::format("<path class=\"bad\" d=\"M{:.1f} {:.1f}l5.5 -9.5h-11z\"/>", x, y + 5.7);
    default:
      return fmt::format("<circle class=\"even\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.2\"/>", x, y);
  }
}

/// Keeps the first and last point, and the least and greatest of each stretch between.
std::vector<CurvePoint> thinned(std::vector<CurvePoint> points) {
  constexpr std::size_t kStretches = 150;
  if (points.size() <= 2 * kStretches) return points;
  std::vector<CurvePoint> kept{points.front()};
  for (std::size_t s = 0; s < kStretches; ++s) {
    const auto begin = points.begin() + std::ptrdiff_t(1 + s * (points.size() - 2) / kStretches);
    const auto end =
        points.begin() + std::ptrdiff_t(1 + (s + 1) * (points.size() - 2) / kStretches);
    auto [low, high] = std::ranges::minmax_element(begin, end, {}, &CurvePoint::y);
    if (high < low) std::swap(low, high);
    kept.push_back(*low);
    if (high != low) kept.push_back(*high);
  }
  kept.push_back(points.back());
  return kept;
}

}  // namespace

std::string forest_svg(const std::vector<const SiteRow*>& all) {
  std::vector<const SiteRow*> sites;
  double low = 0, high = 0;
  for (const auto* site : all) {
    if (!site->difference || site->verdict == Verdict::kUntold) continue;
    sites.push_back(site);
    low = std::min({low, site->difference->low, site->difference->value});
    high = std::max({high, site->difference->high, site->difference->value});
  }
  if (sites.empty()) return "";
  low = std::max(low, -1.0);
  high = std::min(high, 1.0);
  widen(low, high, 0.02);
  constexpr double kLeft = 112, kRow = 24, kTop = 26;
  const Scale x{kLeft, kWidth - 10, low, high};
  const double bottom = kTop + kRow * double(sites.size());
  auto svg = open(
      "forest", bottom + 24, "Difference to local training, by site",
      "A line a site: the difference of the chosen federated model to local training, with its 95 "
      "% "
      "interval; right of zero the federation is better. The table above holds the same numbers.");
  for (const Ticks ticks(low, high, 5); const double t : ticks.at)
    svg += line("grid", x(t), kTop, x(t), bottom) +
           label(x(t), bottom + 16, "middle",
                 std::abs(t) < ticks.step / 2 ? "0" : signed_decimal(t, ticks.digits));
  svg += line("zero", x(0), kTop - 6, x(0), bottom);
  svg += x(0) - kLeft > 70 ? label(x(0) - 6, 13, "end", "← local better") : "";
  svg += kWidth - x(0) > 130 ? label(x(0) + 6, 13, "start", "federation better →") : "";
  double y = kTop + kRow / 2;
  for (const auto* site : sites) {
    const auto& d = *site->difference;
    svg += label(kLeft - 10, y + 4, "end", html(site->name, 14));
    if (d.interval) svg += line("whisker", x(d.low), y, x(d.high), y);
    svg += marker(site->verdict, x(d.value), y) + "\n";
    y += kRow;
  }
  return svg + "</svg>";
}

std::string curve_svg(const std::string& id, const std::string& title,
                      std::vector<CurvePoint> points) {
  if (points.empty()) return "";
  for (auto& p : points)  // beyond it no scale has steps
    for (double* v : {&p.x, &p.y, &p.low, &p.high}) *v = std::clamp(*v, -1e9, 1e9);
  const auto last = points.back();
  const auto total = points.size();
  points = thinned(std::move(points));
  double low = last.y, high = last.y;
  for (const auto& p : points) {
    low = std::min(low, p.interval ? std::min(p.y, p.low) : p.y);
    high = std::max(high, p.interval ? std::max(p.y, p.high) : p.y);
  }
  widen(low, high, std::max(0.02, std::abs(high) * 1e-6));
  double first_x = points.front().x, last_x = points.back().x;
  if (!(last_x > first_x)) first_x -= 0.5, last_x += 0.5;
  constexpr double kLeft = 44, kRight = kWidth - 14, kTop = 10, kBottom = 164;
  const Scale x{kLeft, kRight, first_x, last_x}, y{kBottom, kTop, low, high};
  auto svg =
      open(id, kBottom + 34, title,
           fmt::format("A curve over {}, ending at {}. The table of rounds holds the numbers.",
                       plural(total, "round", "rounds"), decimal(last.y)));
  for (const Ticks ticks(low, high, 5); const double t : ticks.at)
    svg += line("grid", kLeft, y(t), kRight, y(t)) +
           label(kLeft - 7, y(t) + 4, "end", decimal(t, ticks.digits));
  for (const Ticks ticks(first_x, last_x, 6, true); const double t : ticks.at)
    svg += label(x(t), kBottom + 16, "middle", decimal(t, 0));
  svg += label((kLeft + kRight) / 2, kBottom + 31, "middle", "round") + "\n";
  std::string there, back, path;
  for (const auto& p : points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x(p.x), y(p.y));
    there += p.interval
                 ? fmt::format("{}{:.1f} {:.1f}", there.empty() ? "M" : "L", x(p.x), y(p.high))
                 : "";
  }
  for (auto p = points.rbegin(); p != points.rend(); ++p)
    back += p->interval ? fmt::format("L{:.1f} {:.1f}", x(p->x), y(p->low)) : "";
  if (!there.empty()) svg += fmt::format("<path class=\"band\" d=\"{}{}z\"/>\n", there, back);
  svg += fmt::format("<path class=\"curve\" d=\"{}\"/>\n", path);
  if (points.size() <= 60)
    for (const auto& p : points)
      svg += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>",
                         p.whole ? "dot" : "hollow", x(p.x), y(p.y), p.whole ? "2.6" : "3.4");
  return svg + "</svg>";
}

std::string bytes_svg(std::uint64_t sent, std::uint64_t fp32) {
  constexpr double kLeft = 74, kLongest = 200;
  const double most = std::max(1.0, double(std::max(sent, fp32)));
  auto svg = open("bytes", 62, "Bytes sent up by the sites",
                  fmt::format("{} were sent; as float32 it would have been {}.", byte_text(sent),
                              byte_text(fp32)));
  const auto bar = [&](double y, const char* kind, const char* name, std::uint64_t bytes) {
    const double length = std::max(1.0, kLongest * double(bytes) / most);
    svg += label(kLeft - 10, y + 15, "end", name) +
           fmt::format(
               "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"20\" rx=\"2\"/>",
               kind, kLeft, y, length) +
           label(kLeft + length + 8, y + 15, "start", byte_text(bytes)) + "\n";
  };
  bar(6, "bar", "sent", sent);
  bar(34, "bar-pale", "as fp32", fp32);
  return svg + "</svg>";
}

}  // namespace preceptor::app
