#pragma once
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "privacy/differential_privacy/accountant.h"

namespace preceptor::privacy {

/// One release of a data set: what a round of a job let out.
struct Debit {
  std::string job;
  std::uint32_t round = 0;
  Mechanism mechanism;
  std::int64_t time = 0;  ///< seconds since 1970; debit() fills it in
};
/// What a hospital allows in all, over every job.
struct Budget {
  double epsilon = 0;
  double delta = 1e-5;  ///< in (0, 1)
};
/// What a ledger's file says, whole.
struct LedgerState {
  std::string dataset;        ///< hex of the content hash of the data's manifest
  std::string name;           ///< for people
  std::uint64_t records = 0;  ///< when the ledger was begun
  std::vector<Debit> debits;
  std::vector<Mechanism> released() const;
  Spent spent(double delta) const { return epsilon_spent(released(), delta); }
};

/// The durable account of one data set across jobs, kept by the node that has the data. A debit is
/// on disk before it returns, so before anything leaves; nothing is ever given back, a round that
/// came to nothing included: an account after any crash shows at least what was released (I11).
///
/// Two files in `dir`, mode 0600. "<dataset>.ledger": a line a record, "SHA-256 JSON\n", each hash
/// over the one before, so a line that is changed or missing is seen. "<dataset>.head": a copy of
/// the last line, replaced (written beside, synced, renamed) before the line is appended and
/// synced. So the end of the ledger may be torn by a crash and is then mended from the head, as a
/// debit; a ledger that lost more than its last line is refused. Both files copied back together
/// from a backup are not seen: that is for whoever may write to this folder.
///
/// One process at a time (flock). Not thread-safe.
class Ledger {
 public:
  /// Opens or begins the ledger of a data set, by its content hash (64 hexadecimal digits).
  /// kUnavailable: another process has it. kCorrupt: it was changed or lost its end; nothing may be
  /// released until it is restored.
  static Result<Ledger> open(const std::filesystem::path& dir, const std::string& dataset,
                             const std::string& name, std::uint64_t records);
  ~Ledger();
  Ledger(Ledger&&) noexcept;
  Ledger& operator=(Ledger&&) = delete;

  /// kRefused, and nothing is written, when it would spend more than the budget. Any other error:
  /// it may or may not be written, and this object takes no more debits (a failed sync is not tried
  /// again).
  Result<void> debit(const Debit& debit, const Budget& budget);
  /// What debit would answer, of this release `times` over; writes nothing.
  Result<void> affordable(const Mechanism& release, std::uint64_t times,
                          const Budget& budget) const;
  const LedgerState& state() const { return state_; }

 private:
  Ledger(std::filesystem::path path, int file) : path_(std::move(path)), file_(file) {}
  Result<void> load(const std::string& dataset, const std::string& name, std::uint64_t records);
  Result<void> write(const std::string& json);

  std::filesystem::path path_;
  int file_ = -1;
  LedgerState state_;
  std::string last_;  ///< hash of the last record
  bool broken_ = false;
};

/// Reads a ledger without changing it, also while a node uses it. kCorrupt as above.
Result<LedgerState> read_ledger(const std::filesystem::path& ledger);
/// Every ledger in a folder, by name; an empty list where there is no folder.
Result<std::vector<std::filesystem::path>> ledgers_in(const std::filesystem::path& dir);

}  // namespace preceptor::privacy
