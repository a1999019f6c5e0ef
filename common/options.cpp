#include "common/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "common/file.h"

namespace preceptor {
namespace {

constexpr std::uint64_t kMaxYamlBytes = 1 << 20;

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row.back();
}

/// What --set put into the tree is tagged with the option's own text, for messages.
constexpr std::string_view kSet = "--set ";

void tag(YAML::Node node, const std::string& text) {
  if (node.Tag() == text) return;  // an alias came back to its anchor
  node.SetTag(text);
  for (auto entry : node) {
    if (!node.IsMap()) {
      tag(entry, text);
    } else {
      tag(entry.first, text);
      tag(entry.second, text);
    }
  }
}

void put(YAML::Node map, const std::string& key, const YAML::Node& value, const std::string& text) {
  YAML::Node name(key);
  tag(name, text);
  tag(value, text);
  map.remove(key);
  map.force_insert(name, value);
}

Result<void> apply_override(YAML::Node root, const std::string& text) {
  const auto option = std::string(kSet) + text;
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return fail(Code::kInvalid, "{}: wants key=value, as in --set training.epochs=2", option);
  std::vector<std::string> keys;
  for (std::size_t at = 0; at <= equals;) {
    const auto dot = std::min(text.find('.', at), equals);
    keys.push_back(text.substr(at, dot - at));
    if (keys.back().empty()) return fail(Code::kInvalid, "{}: empty key", option);
    at = dot + 1;
  }
  YAML::Node node = root;
  for (std::size_t i = 0; i + 1 < keys.size(); ++i) {
    const YAML::Node& map = node;  // a const look-up adds no key
    const auto there = map[keys[i]];
    const bool absent = !there.IsDefined() || there.IsNull();
    const auto next = absent ? YAML::Node(YAML::NodeType::Map) : there;
    if (!next.IsMap())
      return fail(Code::kInvalid, "{}: '{}' is not a group of keys", option, keys[i]);
    if (absent) put(node, keys[i], next, option);
    node.reset(next);
  }
  try {
    put(node, keys.back(), YAML::Load(text.substr(equals + 1)), option);
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalid, "{}: {}", option, e.msg);
  }
  return {};
}

/// "run.yaml:7"; no line for a node that no text gave rise to.
std::string place(const std::string& file, const YAML::Mark& mark) {
  return mark.is_null() ? file : fmt::format("{}:{}", file, mark.line + 1);
}

}  // namespace

std::string nearest(const std::string& word, const std::set<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = word.size() / 2 + 2;
  for (const auto& candidate : candidates) {
    const auto distance = edit_distance(word, candidate);
    if (distance < best_distance) best_distance = distance, best = candidate;
  }
  return best;
}

std::unexpected<Error> problems_error(const std::vector<std::string>& problems) {
  return fail(Code::kInvalid, "{}", fmt::join(problems, "\n"));
}

Result<YAML::Node> parse_yaml(const std::string& text, const std::string& name,
                              const std::vector<std::string>& overrides) {
  try {
    YAML::Node root = YAML::Load(text);
    if (root.IsNull()) root = YAML::Node(YAML::NodeType::Map);
    if (!root.IsMap()) return fail(Code::kInvalid, "{}: wants keys and values at the top", name);
    for (const auto& change : overrides) TRY(apply_override(root, change));
    return root;
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalid, "{}: {}", place(name, e.mark), e.msg);
  }
}

Result<YAML::Node> load_yaml(const std::filesystem::path& file,
                             const std::vector<std::string>& overrides) {
  return parse_yaml(TRY(read_text(file, kMaxYamlBytes)), file.string(), overrides);
}

OptionsReader::OptionsReader(const YAML::Node& node, std::string file, std::string path,
                             std::vector<std::string>& problems)
    : node_(node), file_(std::move(file)), path_(std::move(path)), problems_(problems) {
  if (!node_.IsMap() && !node_.IsNull()) {
    problem(node_, path_, "wants a group of keys");
    node_ = YAML::Node(YAML::NodeType::Map);
  }
}

YAML::Node OptionsReader::take(const char* key) {
  known_.insert(key);
  if (!node_.IsMap()) return YAML::Node(YAML::NodeType::Undefined);
  const YAML::Node& map = node_;  // a const look-up adds no key
  return map[key];
}

void OptionsReader::operator()(const char* key, std::string& value, const OneOf& allowed) {
  const auto node = take(key);
  if (!node || !scalar(node, join(key), "a text")) return;
  value = node.Scalar();
  if (std::ranges::find(allowed, value) == allowed.end())
    problem(node, join(key),
            fmt::format("'{}' is not one of: {}", value, fmt::join(allowed, ", ")));
}

void OptionsReader::finish() {
  if (!node_.IsMap()) return;
  std::set<std::string> seen;
  for (const auto& entry : node_) {
    const auto key = entry.first.IsScalar() ? entry.first.Scalar() : std::string("?");
    if (!seen.insert(key).second) {
      problem(entry.first, join(key), "stands here twice");
      continue;
    }
    if (known_.contains(key)) continue;
    auto near = nearest(key, known_);
    problem(entry.first, join(key),
            near.empty() ? fmt::format("unknown key; known here: {}", fmt::join(known_, ", "))
                         : fmt::format("unknown key; did you mean '{}'?", near));
  }
}

void OptionsReader::problem(const YAML::Node& node, const std::string& path,
                            const std::string& text) {
  auto where = node.IsDefined() ? place(file_, node.Mark()) : file_;
  if (node.IsDefined() && node.Tag().starts_with(kSet)) where = node.Tag();
  problems_.push_back(path.empty() ? fmt::format("{}: {}", where, text)
                                   : fmt::format("{}: {}: {}", where, path, text));
}

bool OptionsReader::scalar(const YAML::Node& node, const std::string& path, const char* wanted) {
  if (node.IsScalar()) return true;
  problem(node, path, fmt::format("wants {}", wanted));
  return false;
}

void OptionsReader::read(const YAML::Node& node, const std::string& path, bool& value,
                         const Range&) {
  if (scalar(node, path, "true or false") && !YAML::convert<bool>::decode(node, value))
    problem(node, path, fmt::format("wants true or false, not '{}'", node.Scalar()));
}

void OptionsReader::read(const YAML::Node& node, const std::string& path, std::string& value,
                         const Range&) {
  if (scalar(node, path, "a text")) value = node.Scalar();
}

void OptionsReader::read(const YAML::Node& node, const std::string& path, double& value,
                         const Range& range) {
  double number = 0;
  if (!scalar(node, path, "a number")) return;
  if (!YAML::convert<double>::decode(node, number) || !std::isfinite(number))
    return problem(node, path, fmt::format("wants a number, not '{}'", node.Scalar()));
  if (number < range.low || number > range.high)
    return problem(node, path, fmt::format("{} is outside {} … {}", number, range.low, range.high));
  value = number;
}

template <class Wide>
void OptionsReader::read_integer(const YAML::Node& node, const std::string& path, Wide& value,
                                 const Range& range) {
  Wide number = 0;
  if (!scalar(node, path, "a whole number")) return;
  if (!YAML::convert<Wide>::decode(node, number))
    return problem(node, path, fmt::format("wants a whole number, not '{}'", node.Scalar()));
  if (double(number) < range.low || double(number) > range.high)
    return problem(node, path, fmt::format("{} is outside {} … {}", number, range.low, range.high));
  value = number;
}
template void OptionsReader::read_integer(const YAML::Node&, const std::string&, std::int64_t&,
                                          const Range&);
template void OptionsReader::read_integer(const YAML::Node&, const std::string&, std::uint64_t&,
                                          const Range&);

void OptionsReader::read(const YAML::Node& node, const std::string& path,
                         std::map<std::string, std::string>& value, const Range&) {
  if (!node.IsMap()) return problem(node, path, "wants a group of keys");
  value.clear();
  for (const auto& entry : node) {
    const auto inner = path + "." + entry.first.Scalar();
    if (!entry.second.IsScalar())
      problem(entry.first, inner, "wants a plain value");
    else if (!value.emplace(entry.first.Scalar(), entry.second.Scalar()).second)
      problem(entry.first, inner, "stands here twice");
  }
}

}  // namespace preceptor
