#include "app/sweep_figure.h"

#include "app/report_format.h"
#include "app/svg_parts.h"

namespace preceptor::app {
namespace {

constexpr double kWidth = 720, kLeft = 56, kRight = 700, kTop = 16, kRowOfKey = 18;

constexpr const char* kStyle =
    "<style>text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd}.whisker{stroke:#567;stroke-width:1.5}"
    ".dot{fill:#05c}.number{font-weight:600;fill:#05c}@media(prefers-color-scheme:dark){text{fill:#bbb}.grid{stroke:#444}"
    ".whisker{stroke:#9ab}.dot,.number{fill:#6af}}</style>\n";

}  // namespace

std::string sweep_svg(const std::string& metric, const std::vector<SweepPoint>& points) {
  if (points.empty()) return "";
  double low = 1e9, high = -1e9, fewest = 1e300, most = 1;
  for (const auto& p : points) {
    low = std::min({low, p.low, p.metric});
    high = std::max({high, p.high, p.metric});
    fewest = std::min(fewest, std::max(1.0, p.bytes));
    most = std::max(most, p.bytes);
  }
  widen(low, high, 0.02);
  double first = std::log10(fewest), last = std::log10(most);
  widen(first, last, 1);
  constexpr double kBottom = 316;
  const Scale x{kLeft, kRight, first, last}, y{kBottom, kTop, low, high};
  const double height = kBottom + 56 + kRowOfKey * double((points.size() + 1) / 2);
  auto svg = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {:.0f}\" role=\"img\"><title>{} against bytes of all updates</title>\n{}",
                         kWidth, height, html(metric), kStyle);
  for (const Ticks ticks(low, high, 6); const double t : ticks.at)
    svg += line("grid", kLeft, y(t), kRight, y(t)) + label(kLeft - 7, y(t) + 4, "end", decimal(t, ticks.digits));
  for (int power = int(std::ceil(first)); power <= int(std::floor(last)); ++power)
    svg += line("grid", x(power), kTop, x(power), kBottom) + label(x(power), kBottom + 16, "middle", byte_text(std::uint64_t(std::pow(10, power))));
  svg += label((kLeft + kRight) / 2, kBottom + 33, "middle", "bytes of all updates, all rounds") + label(kLeft, kTop - 4, "start", html(metric)) + "\n";
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto& p = points[i];
    const double at = x(std::log10(std::max(1.0, p.bytes)));
    const auto number = fmt::format("<tspan class=\"number\">{}</tspan>", i + 1);
    svg += line("whisker", at, y(p.low), at, y(p.high)) +
           fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"/>", at, y(p.metric)) + label(at + 6, y(p.metric) - 5, "start", number) +
           label(kLeft + double(i % 2) * 320, kBottom + 56 + kRowOfKey * double(i / 2), "start",
                 fmt::format("{} {}: {} ({}–{}), {}", number, html(p.name, 28), decimal(p.metric), decimal(p.low), decimal(p.high),
                             byte_text(std::uint64_t(p.bytes)))) +
           "\n";
  }
  return svg + "</svg>\n";
}

}  // namespace preceptor::app
