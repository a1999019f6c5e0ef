#include "app/report_format.h"

#include <cmath>

namespace preceptor::app {
namespace {

constexpr char32_t kBad = 0xFFFD;

/// Takes the next character off the text; kBad for a byte that is no UTF-8.
char32_t next(std::string_view& text) {
  const auto byte = [&](std::size_t i) { return char32_t(static_cast<unsigned char>(text[i])); };
  const auto first = byte(0);
  const std::size_t length = first < 0x80                    ? 1
                             : first >= 0xF0 && first < 0xF5 ? 4
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xC2 && first < 0xE0 ? 2
                                                             : 0;
  char32_t c = length == 1 ? first : first & (0x7F >> length);
  bool good = length > 0 && length <= text.size();
  for (std::size_t i = 1; good && i < length; ++i) {
    good = (byte(i) & 0xC0) == 0x80;
    c = c << 6 | (byte(i) & 0x3F);
  }
  static constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  good = good && c >= kSmallest[length] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
  text.remove_prefix(good ? length : 1);
  return good ? c : kBad;
}

/// Steers a terminal, or turns the reading direction of what follows.
bool unsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

std::size_t width(char32_t c) {
  const auto in = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
  if (in(0x300, 0x36F) || in(0x200B, 0x200D) || in(0xFE00, 0xFE0F)) return 0;
  const bool wide = in(0x1100, 0x115F) || in(0x2E80, 0xA4CF) || in(0xAC00, 0xD7A3) ||
                    in(0xF900, 0xFAFF) || in(0xFE30, 0xFE6F) || in(0xFF00, 0xFF60) ||
                    in(0xFFE0, 0xFFE6) || in(0x1F300, 0x1FAFF) || in(0x20000, 0x3FFFD);
  return wide ? 2 : 1;
}

std::string trimmed(double value, const char* unit) {
  return fmt::format("{:.{}f} {}", value, value < 10 ? 1 : 0, unit);
}

}  // namespace

std::string html(std::string_view text, std::size_t characters) {
  std::string out;
  for (std::size_t count = 0; !text.empty(); ++count) {
    if (count == characters) return out + "…";
    const auto before = text;
    const auto c = next(text);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
      case '\t':
        out += char(c);
        break;
      default:
        if (c == kBad || unsafe(c))
          out += "\uFFFD";
        else
          out += before.substr(0, before.size() - text.size());
    }
  }
  return out;
}

std::string html(std::string_view text) { return html(text, std::string_view::npos); }

std::string terminal(std::string_view text, std::size_t limit) {
  std::string out;
  std::size_t used = 0, cut = 0;  // cut: bytes of `out` that leave a column for the ellipsis
  while (!text.empty()) {
    const auto before = text;
    const auto c = next(text);
    const bool bad = c == kBad || unsafe(c);
    used += bad ? 1 : width(c);
    if (used > limit) return out.substr(0, cut) + "…";
    if (bad)
      out += '?';
    else
      out += before.substr(0, before.size() - text.size());
    if (used < limit) cut = out.size();
  }
  return out;
}

std::size_t columns(std::string_view text) {
  std::size_t total = 0;
  while (!text.empty()) total += width(next(text));
  return total;
}

std::string signed_decimal(double value, int digits) {
  if (std::abs(value) >= 1e6) return fmt::format("{:+.2e}", value);
  const auto text = fmt::format("{:.{}f}", std::abs(value), digits);
  if (text.find_first_not_of("0.") == text.npos) return text;
  return (value < 0 ? "−" : "+") + text;
}

std::string decimal(double value, int digits) {
  const auto text = signed_decimal(value, digits);
  return text.starts_with('+') ? text.substr(1) : text;
}

std::string decimal(const Metric& metric, int digits) {
  return metric ? decimal(metric->value, digits) : "–";
}

std::string p_text(double p) {
  return p < 0.001 ? "p < 0.001" : "p = " + decimal(p, p < 0.1 ? 3 : 2);
}

std::string grouped(std::uint64_t count) {
  auto text = std::to_string(count);
  for (auto i = std::ptrdiff_t(text.size()) - 3; i > 0; i -= 3) text.insert(std::size_t(i), ",");
  return text;
}

std::string grouped(const std::optional<std::uint64_t>& count) {
  return count ? grouped(*count) : "–";
}

std::string short_count(std::uint64_t count) {
  const auto value = double(count);
  if (value < 1e4) return grouped(count);
  return value < 1e6   ? trimmed(value / 1e3, "k")
         : value < 1e9 ? trimmed(value / 1e6, "M")
                       : trimmed(value / 1e9, "G");
}

std::string byte_text(std::uint64_t bytes) {
  const auto value = double(bytes);
  if (value < 1e3) return fmt::format("{} B", bytes);
  if (value < 1e6) return trimmed(value / 1e3, "kB");
  if (value < 1e9) return trimmed(value / 1e6, "MB");
  return value < 1e12 ? trimmed(value / 1e9, "GB") : trimmed(value / 1e12, "TB");
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e12) return "–";
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::uint64_t(seconds);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", grouped(whole / 3600), whole / 60 % 60);
}

std::string plural(std::uint64_t count, const char* one, const char* many) {
  return fmt::format("{} {}", grouped(count), count == 1 ? one : many);
}

const char* word(Verdict verdict) {
  static constexpr const char* kWords[] = {"helped", "no difference", "harmed", "cannot tell"};
  return kWords[int(verdict)];
}

}  // namespace preceptor::app
