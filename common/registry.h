#pragma once
#include <fmt/ranges.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/result.h"

namespace preceptor {

/// Names of one kind of thing (model, codec, loss …) and what makes them. One instance a kind,
/// filled before main by registrars; read-only afterwards, so readable from every thread.
template <class Entry>
class Registry {
 public:
  explicit Registry(std::string kind) : kind_(std::move(kind)) {}

  void add(const std::string& name, Entry entry) {
    if (!entries_.emplace(name, std::move(entry)).second)
      throw std::logic_error(kind_ + " registered twice: " + name);
  }
  /// The entry, or an error that lists every known name.
  Result<const Entry*> find(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found != entries_.end()) return &found->second;
    return fail(Code::kInvalid, "unknown {} '{}'; known: {}", kind_, name,
                fmt::join(names(), ", "));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, entry] : entries_) all.push_back(name);
    return all;
  }

 private:
  std::string kind_;
  std::map<std::string, Entry> entries_;
};

}  // namespace preceptor
