#pragma once
#include <yaml-cpp/yaml.h>

#include <chrono>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/result.h"

namespace preceptor {

/// Allowed values of a number, both ends included.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};
/// Allowed values of a string.
using OneOf = std::vector<std::string>;

template <class T, class V>
concept Visitable = requires(T& options, V& visitor) {
  options.visit(visitor);
};

/// Fills an options struct from YAML. The struct's `visit` names each key once:
///   template <class V> void visit(V& v) { v("rounds", rounds, Range{1, 1e4}); v("data", data); }
/// A missing key keeps the default. Every problem in the file is collected, with file and line;
/// an unknown key is answered with the nearest known one.
class OptionsReader {
 public:
  OptionsReader(const YAML::Node& node, std::string file, std::string path,
                std::vector<std::string>& problems);
  ~OptionsReader() = default;

  template <class T>
  void operator()(const char* key, T& value, const Range& range = {}) {
    if (const auto node = take(key)) read(node, join(key), value, range);
  }
  void operator()(const char* key, std::string& value, const OneOf& allowed);
  /// Reports the keys of the node that no visit asked for. Called by read_options.
  void finish();

 private:
  YAML::Node take(const char* key);
  std::string join(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  void problem(const YAML::Node& node, const std::string& path, const std::string& text);
  bool scalar(const YAML::Node& node, const std::string& path, const char* wanted);

  void read(const YAML::Node& node, const std::string& path, bool& value, const Range&);
  void read(const YAML::Node& node, const std::string& path, std::string& value, const Range&);
  void read(const YAML::Node& node, const std::string& path, double& value, const Range& range);
  template <class Wide>  // std::int64_t, std::uint64_t
  void read_integer(const YAML::Node& node, const std::string& path, Wide& value,
                    const Range& range);
  void read(const YAML::Node& node, const std::string& path,
            std::map<std::string, std::string>& value, const Range&);

  template <class T>
  requires std::integral<T> &&
      (!std::same_as<T, bool>)void read(const YAML::Node& node, const std::string& path, T& value,
                                        const Range& range) {
    using Wide = std::conditional_t<std::same_as<T, std::uint64_t>, std::uint64_t, std::int64_t>;
    auto wide = Wide(value);
    const Range fits{std::max(range.low, double(std::numeric_limits<T>::min())),
                     std::min(range.high, double(std::numeric_limits<T>::max()))};
    read_integer(node, path, wide, fits);
    value = T(wide);
  }
  template <class Rep, class Period>
  void read(const YAML::Node& node, const std::string& path,
            std::chrono::duration<Rep, Period>& value, const Range& range) {
    auto count = std::int64_t(value.count());
    read_integer(node, path, count, range);
    value = std::chrono::duration<Rep, Period>(Rep(count));
  }
  template <class T>
  void read(const YAML::Node& node, const std::string& path, std::vector<T>& value,
            const Range& range) {
    if (!node.IsSequence()) return problem(node, path, "wants a list");
    value.clear();
    for (std::size_t i = 0; i < node.size(); ++i) {
      T item{};
      read(node[i], fmt::format("{}[{}]", path, i), item, range);
      value.push_back(std::move(item));
    }
  }
  template <class T>
  requires Visitable<T, OptionsReader>
  void read(const YAML::Node& node, const std::string& path, T& value, const Range&) {
    OptionsReader inner(node, file_, path, problems_);
    value.visit(inner);
    inner.finish();
  }

  YAML::Node node_;
  std::string file_, path_;
  std::vector<std::string>& problems_;
  std::set<std::string> known_;
};

/// Prints an options struct as canonical YAML: every key, in the order of its `visit`.
class OptionsWriter {
 public:
  template <class T, class Limit = Range>
  void operator()(const char* key, T& value, const Limit& = {}) {
    node_[key] = to_node(value);
  }
  YAML::Node node() const { return node_; }

 private:
  template <class T>
  static YAML::Node to_node(T& value) {
    if constexpr (Visitable<T, OptionsWriter>) {
      OptionsWriter inner;
      inner.node_ = YAML::Node(YAML::NodeType::Map);
      value.visit(inner);
      return inner.node_;
    } else if constexpr (requires {
                           value.count();
                           value.zero();
                         }) {
      return YAML::Node(std::int64_t(value.count()));
    } else if constexpr (std::is_arithmetic_v<T> && !std::same_as<T, bool>) {
      return YAML::Node(fmt::format("{}", value));  // the shortest text that reads back as the same
    } else if constexpr (requires { typename T::mapped_type; }) {
      YAML::Node map(YAML::NodeType::Map);
      for (auto& [key, item] : value) map[key] = item;
      return map;
    } else if constexpr (requires { value.push_back(value.front()); } &&
                         !std::same_as<T, std::string>) {
      YAML::Node list(YAML::NodeType::Sequence);
      for (auto& item : value) list.push_back(to_node(item));
      return list;
    } else {
      return YAML::Node(value);
    }
  }
  YAML::Node node_;
};

/// A YAML file (at most 1 MiB) with `--set a.b=value` overrides applied; a value may be any YAML.
/// The nodes of an override carry its text as their tag, for messages: print with write_options,
/// not this tree.
Result<YAML::Node> load_yaml(const std::filesystem::path& file,
                             const std::vector<std::string>& overrides = {});
Result<YAML::Node> parse_yaml(const std::string& text, const std::string& name,
                              const std::vector<std::string>& overrides = {});

/// Joins problems into one Error (kInvalid), a line each.
std::unexpected<Error> problems_error(const std::vector<std::string>& problems);
/// The candidate with the smallest edit distance, or "" when none is near.
std::string nearest(const std::string& word, const std::set<std::string>& candidates);

template <class T>
Result<T> read_options(const YAML::Node& node, const std::string& file, T options = {}) {
  std::vector<std::string> problems;
  OptionsReader reader(node, file, "", problems);
  options.visit(reader);
  reader.finish();
  if (!problems.empty()) return problems_error(problems);
  return options;
}

/// Options of one registered thing (a codec, say), from the plain map that a plan carries.
template <class T>
Result<T> read_settings(const std::map<std::string, std::string>& settings, const std::string& what,
                        T options = {}) {
  YAML::Node node(YAML::NodeType::Map);
  for (const auto& [key, value] : settings) node[key] = value;
  return read_options(node, what, std::move(options));
}

template <class T>
std::string write_options(T& options) {
  OptionsWriter writer;
  options.visit(writer);
  YAML::Emitter out;
  out << writer.node();
  return std::string(out.c_str()) + "\n";
}

}  // namespace preceptor
