#include "data/csv.h"

#include <algorithm>

namespace preceptor::data {
namespace {

constexpr std::size_t kMaxColumns = 256, kMaxRows = 2'000'000;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  // Skips blank lines; false at the end of the text.
  bool more() {
    while (end_of_line()) {
    }
    return !text_.empty();
  }
  std::size_t line() const { return line_; }

  Result<std::vector<std::string>> row() {
    std::vector<std::string> fields;
    do {
      if (fields.size() == kMaxColumns)
        return fail(Code::kCorrupt, "line {}: over {} columns", line_, kMaxColumns);
      fields.push_back(TRY(text_.starts_with('"') ? quoted() : bare()));
    } while (take(','));
    if (!text_.empty() && !end_of_line())
      return fail(Code::kCorrupt, "line {}: text after a closing quote", line_);
    return fields;
  }

 private:
  bool take(char c) {
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool end_of_line() {
    if (text_.starts_with("\r\n")) text_.remove_prefix(1);
    if (!take('\n')) return false;
    ++line_;
    return true;
  }
  Result<std::string> bare() {
    const auto end = std::min(text_.find_first_of(",\"\n"), text_.size());
    if (end < text_.size() && text_[end] == '"')
      return fail(Code::kCorrupt, "line {}: a quote inside a field that does not begin with one",
                  line_);
    std::string field(text_.substr(0, end));
    text_.remove_prefix(end);
    if (!text_.starts_with(',') && field.ends_with('\r')) field.pop_back();
    return field;
  }
  Result<std::string> quoted() {
    const auto begin = line_;
    std::string field;
    text_.remove_prefix(1);
    for (;;) {
      const auto end = text_.find('"');
      if (end == std::string_view::npos)
        return fail(Code::kCorrupt, "line {}: a quote is not closed", begin);
      line_ += std::size_t(std::count(text_.begin(), text_.begin() + std::ptrdiff_t(end), '\n'));
      field.append(text_.substr(0, end));
      text_.remove_prefix(end + 1);
      if (!take('"')) return field;
      field += '"';
    }
  }

  std::string_view text_;
  std::size_t line_ = 1;
};

}  // namespace

std::optional<std::size_t> CsvTable::column(std::string_view name) const {
  const auto found = std::ranges::find(header, name);
  if (found == header.end()) return std::nullopt;
  return std::size_t(found - header.begin());
}

Result<CsvTable> parse_csv(std::string_view text) {
  Parser parser(text);
  CsvTable table;
  if (!parser.more()) return fail(Code::kCorrupt, "no header row");
  table.header = TRY(parser.row());
  for (auto column = table.header.begin(); column != table.header.end(); ++column)
    if (std::find(table.header.begin(), column, *column) != column)
      return fail(Code::kCorrupt, "column '{}' stands twice", *column);
  while (parser.more()) {
    CsvTable::Row row{parser.line(), TRY(parser.row())};
    if (row.fields.size() != table.header.size())
      return fail(Code::kCorrupt, "line {}: {} fields, the header has {}", row.line,
                  row.fields.size(), table.header.size());
    if (table.rows.size() == kMaxRows) return fail(Code::kCorrupt, "over {} rows", kMaxRows);
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace preceptor::data
