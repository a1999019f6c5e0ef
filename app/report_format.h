#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "app/report_run.h"

/// Numbers and foreign texts, made fit for a page or a terminal.
namespace preceptor::app {

/// A foreign text for HTML or SVG, between tags or in a quoted attribute: markup is escaped, and
/// bytes that are no UTF-8, control characters and changes of direction become U+FFFD.
std::string html(std::string_view text);
/// html, cut to so many characters, with "…" when something was cut.
std::string html(std::string_view text, std::size_t characters);

/// A foreign text for one line of a terminal: as above with "?", cut to so many columns.
std::string terminal(std::string_view text, std::size_t columns);
/// Columns that a text takes on a terminal; East Asian wide characters take two.
std::size_t columns(std::string_view text);

/// "0.931", "−0.020"; "–" for nothing. Never "−0.000".
std::string decimal(double value, int digits = 3);
std::string decimal(const Metric& metric, int digits = 3);
std::string signed_decimal(double value, int digits = 3);  ///< "+0.020"
std::string p_text(double p);                              ///< "p = 0.013", "p < 0.001"
std::string grouped(std::uint64_t count);                  ///< "12,400"
std::string grouped(const std::optional<std::uint64_t>& count);
std::string short_count(std::uint64_t count);  ///< "352 k", "11.2 M"
std::string byte_text(std::uint64_t bytes);    ///< SI: "5.3 MB"
std::string duration_text(double seconds);     ///< "1 min 32 s"
/// "1 site", "4 sites"
std::string plural(std::uint64_t count, const char* one, const char* many);

/// "helped", "no difference", "harmed", "cannot tell".
const char* word(Verdict verdict);

}  // namespace preceptor::app
