#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace preceptor::data {

/// A CSV text with a header row (RFC 4180: commas, double quotes, LF or CRLF; a UTF-8 byte-order
/// mark and blank lines are skipped). A value.
struct CsvTable {
  struct Row {
    std::size_t line = 0;             ///< where it begins in the text, from 1
    std::vector<std::string> fields;  ///< as many as `header`
  };
  std::vector<std::string> header;
  std::vector<Row> rows;

  /// Place of a column, if there is one of that name.
  std::optional<std::size_t> column(std::string_view name) const;
};

/// Errors: kCorrupt with the line, and without a field's text, when a quote is not closed or stands
/// inside a bare field, a row has more or fewer fields than the header, a column stands twice,
/// there is no header, or there are over 256 columns or 2 million rows.
Result<CsvTable> parse_csv(std::string_view text);

}  // namespace preceptor::data
