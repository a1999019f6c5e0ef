#pragma once
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <expected>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/report_run.h"

/// JSON from files that nobody vouches for, without exceptions.
namespace preceptor::app {

/// Finds out whether a text is JSON before a tree is made of it: at most 32 deep, and no object of
/// more than max_keys. The error is a phrase to stand after the file's name.
std::expected<void, std::string> inspect_json(std::string_view text, std::size_t max_keys);

/// The tree of a text that is an object and passes inspect_json.
template <class Json>
std::expected<Json, std::string> parse_object(std::string_view text, std::size_t max_keys) {
  if (const auto sane = inspect_json(text, max_keys); !sane) return std::unexpected(sane.error());
  auto json = Json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) return std::unexpected(std::string("is not a JSON object"));
  return json;
}

/// Adds a line to the list, which stays short whatever the files hold.
void add_flaw(std::vector<std::string>& flaws, std::string flaw);

/// Typed access to an object's keys. Missing or null is nothing; a wrong type is a flaw.
template <class Json>
class Fields {
 public:
  Fields(const Json& json, std::string where, std::vector<std::string>& flaws)
      : json_(json), where_(std::move(where)), flaws_(flaws) {}

  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  std::optional<double> number(const char* key) const {
    const auto* value = find(key);
    if (!value) return {};
    if (!value->is_number()) return flaw(key, "is not a number"), std::nullopt;
    const auto number = value->template get<double>();
    return std::isfinite(number) ? std::optional(number) : std::nullopt;
  }
  std::optional<std::uint64_t> count(const char* key) const {
    const auto* value = find(key);
    if (!value) return {};
    const bool whole = value->is_number_unsigned() ||
                       (value->is_number_integer() && value->template get<std::int64_t>() >= 0);
    if (!whole) return flaw(key, "is not a count"), std::nullopt;
    return value->template get<std::uint64_t>();
  }
  std::string text(const char* key) const {
    const auto* value = find(key);
    if (!value) return {};
    if (!value->is_string()) return flaw(key, "is not a text"), std::string();
    return value->template get_ref<const std::string&>();
  }
  std::optional<bool> flag(const char* key) const {
    const auto* value = find(key);
    if (!value) return {};
    if (!value->is_boolean()) return flaw(key, "is neither true nor false"), std::nullopt;
    return value->template get<bool>();
  }
  Metric metric(const std::string& key) const {
    const auto value = number(key.c_str());
    if (!value) return {};
    const auto low = number((key + "_low").c_str()), high = number((key + "_high").c_str());
    return Measured{*value, low.value_or(*value), high.value_or(*value), low && high};
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> all;
    const auto* list = find(key);
    if (!list) return all;
    if (!list->is_array()) return flaw(key, "is not a list"), all;
    for (const auto& item : *list) {
      if (item.is_string())
        all.push_back(item.template get_ref<const std::string&>());
      else
        flaw(key, "holds something else than texts");
    }
    return all;
  }
  std::optional<Fields> object(const char* key) const {
    const auto* value = find(key);
    if (!value) return {};
    if (!value->is_object()) return flaw(key, "is not an object"), std::nullopt;
    return Fields(*value, where_ + key + ".", flaws_);
  }
  /// The first `limit` objects of a list; anything else in it is a flaw.
  std::vector<Fields> objects(const char* key, std::size_t limit) const {
    std::vector<Fields> all;
    const auto* list = find(key);
    if (!list) return all;
    if (!list->is_array()) return flaw(key, "is not a list"), all;
    for (const auto& item : *list) {
      if (!item.is_object())
        flaw(key, "holds something else than objects");
      else if (all.size() < limit)
        all.emplace_back(item, where_ + key + ".", flaws_);
    }
    return all;
  }
  void flaw(const char* key, const char* what) const {
    add_flaw(flaws_, fmt::format("{}{} {}", where_, key, what));
  }

 private:
  const Json& json_;
  std::string where_;
  std::vector<std::string>& flaws_;
};

}  // namespace preceptor::app
