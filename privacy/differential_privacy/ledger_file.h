#pragma once
#include <optional>
#include <string_view>

#include "privacy/differential_privacy/ledger.h"

namespace preceptor::privacy {

/// The text of a ledger, apart from where it is kept.

/// "SHA-256 JSON\n", the hash over what was before.
struct LedgerLine {
  std::string hash;  ///< 64 hexadecimal digits
  std::string text;  ///< with hash and end of line
};
LedgerLine ledger_line(const std::string& previous_hash, const std::string& json);
/// What the first line's hash is over.
std::string first_hash(const std::string& dataset);

std::string header_json(const LedgerState& state);
std::string debit_json(const Debit& debit);

struct ParsedLedger {
  LedgerState state;
  std::string last_hash;
  std::size_t whole_bytes = 0;        ///< of the file, up to the end of its last whole line
  std::optional<std::string> replay;  ///< a line that the head has and the file has not
};
/// `dataset`: from the file's name. Error: kCorrupt, naming line and way out.
Result<ParsedLedger> parse_ledger(const std::string& dataset, std::string_view ledger,
                                  std::string_view head);

}  // namespace preceptor::privacy
