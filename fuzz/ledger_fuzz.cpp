#include <cmath>

#include "fuzz/fuzz.h"
#include "privacy/differential_privacy/ledger_file.h"

using namespace preceptor::privacy;

namespace {
const std::string kDataset(64, 'a');
}

/// Records, a line each, to be chained here: a mutation would break the hashes of whole ledgers.
std::vector<std::vector<std::uint8_t>> seeds() {
  const LedgerState state{kDataset, "chest", 100, {}};
  const Debit local{"lung", 1, {Noise::kGaussian, 0.1, 1.5, {}, 10}, 1'700'000'000};
  const Debit shared{"skin", 2, {Noise::kSkellam, 0.5, 1, {2, 5, 10, 100, 1000}, 1}, 1'700'000'001};
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto& text :
       {header_json(state) + "\n" + debit_json(local) + "\n" + debit_json(shared),
        std::string("{}\n[]\nnull")})
    all.emplace_back(text.begin(), text.end());
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (parse_ledger(kDataset, text, text) && size > 0) __builtin_trap();
  std::string ledger, head, hash = first_hash(kDataset);
  for (std::size_t at = 0; at <= size;) {
    const auto end = std::min(text.find('\n', at), size);
    const auto line = ledger_line(hash, std::string(text.substr(at, end - at)));
    ledger += head = line.text;
    hash = line.hash;
    at = end + 1;
  }
  const auto parsed = parse_ledger(kDataset, ledger, head);
  if (!parsed) return 0;
  // What is understood can be accounted for, and is never taken for nothing.
  for (const auto& debit : parsed->state.debits)
    if (std::isnan(rdp_spent({debit.mechanism}, 1e-5).epsilon)) __builtin_trap();
  return 0;
}
