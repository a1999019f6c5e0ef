#include "app/report_json.h"

namespace preceptor::app {
namespace {

constexpr std::size_t kMaxDepth = 32, kMaxFlaws = 20;

/// Finds out whether a text is JSON of a sane shape before a tree is made of it.
class Inspector : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Inspector(std::size_t max_keys) : max_keys_(max_keys) {}
  std::string problem = "is not JSON";

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t&) override {
    if (++keys_.back() <= max_keys_) return true;
    problem = fmt::format("has an object of more than {} keys", max_keys_);
    return false;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    problem = fmt::format("is not JSON from byte {} on", position);
    return false;
  }

 private:
  bool open() {
    keys_.push_back(0);
    if (keys_.size() <= kMaxDepth) return true;
    problem = fmt::format("is nested more than {} deep", kMaxDepth);
    return false;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }
  std::size_t max_keys_;
  std::vector<std::size_t> keys_;
};

}  // namespace

std::expected<void, std::string> inspect_json(std::string_view text, std::size_t max_keys) {
  Inspector inspector(max_keys);
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &inspector)) return {};
  return std::unexpected(inspector.problem);
}

void add_flaw(std::vector<std::string>& flaws, std::string flaw) {
  if (flaws.size() < kMaxFlaws)
    flaws.push_back(std::move(flaw));
  else if (flaws.size() == kMaxFlaws)
    flaws.push_back("… and more of the kind");
}

}  // namespace preceptor::app
