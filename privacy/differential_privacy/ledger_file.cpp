#include "privacy/differential_privacy/ledger_file.h"

#include <nlohmann/json.hpp>

#include "common/hash.h"

namespace preceptor::privacy {
namespace {

using Json = nlohmann::json;

constexpr const char* kNoiseNames[] = {"gaussian", "discrete-gaussian", "skellam"};

std::unexpected<Error> corrupt(std::size_t line, const std::string& what) {
  return fail(Code::kCorrupt, "line {} {}; put the ledger and its .head back from a backup made after the last job: until then nothing is released from this data set",
              line, what);
}

Json to_json(const Mechanism& m) {
  Json json{{"noise", kNoiseNames[int(m.noise)]}, {"sampling_rate", m.sampling_rate}, {"steps", m.steps}};
  if (m.noise == Noise::kGaussian) {
    json["noise_multiplier"] = m.noise_multiplier;
  } else {
    json["deviation"] = m.integers.deviation;
    json["shares"] = m.integers.shares;
    json["l2"] = m.integers.l2;
    json["l1"] = m.integers.l1;
    json["dimension"] = m.integers.dimension;
  }
  return json;
}

/// Throws nlohmann's exceptions, for a key that is missing or of another type.
Mechanism mechanism_of(const Json& json) {
  Mechanism m;
  const auto noise = json.at("noise").get<std::string>();
  m.noise = noise == kNoiseNames[1] ? Noise::kDiscreteGaussian : noise == kNoiseNames[2] ? Noise::kSkellam : Noise::kGaussian;
  m.sampling_rate = json.at("sampling_rate").get<double>();
  m.steps = json.at("steps").get<std::uint64_t>();
  if (m.noise == Noise::kGaussian) {
    m.noise_multiplier = json.at("noise_multiplier").get<double>();
  } else {
    m.integers = {json.at("deviation").get<double>(), json.at("shares").get<std::uint32_t>(), json.at("l2").get<double>(),
                  json.at("l1").get<double>(), json.at("dimension").get<double>()};
  }
  return m;
}

/// The JSON of a line "hash JSON" that follows from the hash before; nullopt: it does not.
std::optional<std::string> follow(const std::string& previous, std::string_view line) {
  if (line.size() < 66 || line[64] != ' ') return std::nullopt;
  std::string json(line.substr(65));
  if (ledger_line(previous, json).hash != line.substr(0, 64)) return std::nullopt;
  return json;
}

/// Adds a record to the state; false: it is none, though its hash is right.
bool take(LedgerState& state, const std::string& text, bool first) {
  try {
    const auto json = Json::parse(text);
    if (first) {
      state.name = json.at("name").get<std::string>();
      state.records = json.at("records").get<std::uint64_t>();
      return json.at("dataset").get<std::string>() == state.dataset;
    }
    const auto m = mechanism_of(json.at("mechanism"));
    state.debits.push_back({json.at("job").get<std::string>(), json.at("round").get<std::uint32_t>(), m, json.at("time").get<std::int64_t>()});
    return check(m).has_value();
  } catch (const Json::exception&) {
    return false;
  }
}

}  // namespace

LedgerLine ledger_line(const std::string& previous_hash, const std::string& json) {
  auto hash = hex(Sha256().update("preceptor-ledger-1 ").update(previous_hash).update(" ").update(json).finish());
  return {hash, hash + " " + json + "\n"};
}

std::string first_hash(const std::string& dataset) { return hex(sha256("preceptor-ledger-1 " + dataset)); }

std::string header_json(const LedgerState& state) {
  return Json{{"dataset", state.dataset}, {"name", state.name}, {"records", state.records}}.dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string debit_json(const Debit& debit) {
  return Json{{"job", debit.job}, {"round", debit.round}, {"time", debit.time}, {"mechanism", to_json(debit.mechanism)}}.dump(
      -1, ' ', true, Json::error_handler_t::replace);
}

Result<ParsedLedger> parse_ledger(const std::string& dataset, std::string_view ledger, std::string_view head) {
  ParsedLedger parsed;
  parsed.state.dataset = dataset;
  parsed.last_hash = first_hash(dataset);
  std::string before = parsed.last_hash;  // of the last but one
  std::size_t lines = 0;
  const auto take_line = [&](std::string_view line) -> Result<void> {
    const auto json = follow(parsed.last_hash, line);
    if (!json) return corrupt(lines + 1, "does not follow from the one before: it was changed, or lines before it are missing");
    if (!take(parsed.state, *json, lines == 0)) return corrupt(lines + 1, "is no record of this data set");
    before = std::exchange(parsed.last_hash, std::string(line.substr(0, 64)));
    ++lines;
    return {};
  };
  std::size_t at = 0;
  for (std::size_t end; (end = ledger.find('\n', at)) != std::string_view::npos; at = end + 1) TRY(take_line(ledger.substr(at, end - at)));
  parsed.whole_bytes = at;
  const bool torn = at < ledger.size();
  if (head.empty()) {
    if (lines > 0 || torn) return corrupt(lines, "is there, but the ledger's .head is not");
    return parsed;
  }
  const bool whole = head.ends_with('\n');
  const auto last = head.substr(0, head.size() - 1);
  if (whole && !torn && lines > 0 && last.substr(0, 64) == parsed.last_hash && follow(before, last)) return parsed;
  // A crash between the head and the end of the line: the debit counts.
  if (!whole || !follow(parsed.last_hash, last)) return corrupt(lines + 1, "is not what the ledger's .head says: the end of the ledger is lost");
  TRY(take_line(last));
  parsed.replay = std::string(head);
  return parsed;
}

}  // namespace preceptor::privacy
