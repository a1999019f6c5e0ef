#pragma once
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace preceptor::test {

/// Hexadecimal digits, white space between them, or "-" for nothing.
inline Bytes unhex(std::string_view text) {
  Bytes out;
  int high = -1;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) continue;
    if (high < 0) {
      high = digit;
    } else {
      out.push_back(std::byte(high * 16 + digit));
      high = -1;
    }
  }
  return out;
}

/// A line of tests/vectors/wycheproof/<name>: its number, "valid", "invalid" or "acceptable", and its fields.
struct WycheproofCase {
  int id = 0;
  std::string result;
  std::vector<std::string> fields;
  Bytes bytes(std::size_t i) const { return unhex(fields.at(i)); }
};
inline std::vector<WycheproofCase> wycheproof(const std::string& name) {
  std::ifstream file("tests/vectors/wycheproof/" + name);
  std::vector<WycheproofCase> cases;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    WycheproofCase one;
    words >> one.id >> one.result;
    for (std::string word; words >> word;) one.fields.push_back(word);
    cases.push_back(std::move(one));
  }
  return cases;
}

}  // namespace preceptor::test
