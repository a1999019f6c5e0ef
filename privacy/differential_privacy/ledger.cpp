#include "privacy/differential_privacy/ledger.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/file.h"
#include "privacy/differential_privacy/ledger_file.h"

namespace preceptor::privacy {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxLedger = 256 << 20, kMaxHead = 64 << 10;
constexpr std::size_t kMaxName = 200;

std::unexpected<Error> system_error(const fs::path& path, const char* verb) {
  return fail(Code::kIo, "cannot {} {}: {}", verb, path.string(), std::strerror(errno));
}

fs::path head_of(fs::path ledger) { return ledger.replace_extension(".head"); }

Result<std::string> read_if_there(const fs::path& path, std::uint64_t max_bytes) {
  auto text = read_text(path, max_bytes);
  if (!text && text.error().code == Code::kNotFound) return std::string();
  return text;
}

/// A rename or a new file outlasts a power cut only when its folder is synced.
Result<void> sync_folder(const fs::path& dir) {
  const int file = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = file >= 0 && ::fsync(file) == 0;
  const auto outcome = synced ? Result<void>() : Result<void>(system_error(dir, "sync"));
  if (file >= 0) ::close(file);
  return outcome;
}

Result<void> append(int file, std::string_view text, const fs::path& path) {
  while (!text.empty()) {
    const auto n = ::write(file, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "write");
    text.remove_prefix(std::size_t(n));
  }
  if (::fsync(file) != 0) return system_error(path, "sync");
  return {};
}

Result<ParsedLedger> parse_files(const fs::path& ledger) {
  // The ledger first: while a node writes, the head is then the same age or newer.
  const auto text = TRY(read_if_there(ledger, kMaxLedger));
  const auto head = TRY(read_if_there(head_of(ledger), kMaxHead));
  auto parsed = parse_ledger(ledger.stem().string(), text, head);
  if (!parsed) return in("ledger " + ledger.string(), parsed.error());
  return parsed;
}

}  // namespace

std::vector<Mechanism> LedgerState::released() const {
  std::vector<Mechanism> all;
  for (const auto& debit : debits) all.push_back(debit.mechanism);
  return all;
}

Ledger::Ledger(Ledger&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)), state_(std::move(other.state_)),
      last_(std::move(other.last_)), broken_(other.broken_) {}

Ledger::~Ledger() {
  if (file_ >= 0) ::close(file_);
}

Result<Ledger> Ledger::open(const fs::path& dir, const std::string& dataset, const std::string& name, std::uint64_t records) {
  if (dataset.size() != 64 || dataset.find_first_not_of("0123456789abcdef") != std::string::npos)
    return fail(Code::kInvalid, "a ledger is named by 64 hexadecimal digits, not '{}'", dataset);
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", dir.string(), error.message());
  const auto path = dir / (dataset + ".ledger");
  Ledger ledger(path, ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (ledger.file_ < 0) return system_error(path, "open");
  if (::flock(ledger.file_, LOCK_EX | LOCK_NB) != 0)
    return fail(Code::kUnavailable, "ledger {} is in use by another process: one node at a time may spend a data set's budget", path.string());
  TRY(ledger.load(dataset, name, records));
  return ledger;
}

Result<void> Ledger::load(const std::string& dataset, const std::string& name, std::uint64_t records) {
  auto parsed = TRY(parse_files(path_));
  state_ = std::move(parsed.state);
  last_ = std::move(parsed.last_hash);
  if (parsed.replay) {
    if (::ftruncate(file_, off_t(parsed.whole_bytes)) != 0) return system_error(path_, "mend");
    return append(file_, *parsed.replay, path_);
  }
  if (last_ != first_hash(dataset)) return {};
  state_ = {dataset, name.substr(0, kMaxName), records, {}};
  return write(header_json(state_));
}

/// The head, then the line; see the class.
Result<void> Ledger::write(const std::string& json) {
  if (broken_) return fail(Code::kIo, "ledger {} could not be written before: start the node anew when the disk is well", path_.string());
  const auto line = ledger_line(last_, json);
  broken_ = true;
  TRY(write_file(head_of(path_), line.text, 0600));
  TRY(sync_folder(path_.parent_path()));
  TRY(append(file_, line.text, path_));
  broken_ = false;
  last_ = line.hash;
  return {};
}

Result<void> Ledger::affordable(const Mechanism& release, std::uint64_t times, const Budget& budget) const {
  TRY(check(release));
  auto all = state_.released();
  const double before = rdp_spent(all, budget.delta).epsilon;
  all.push_back(release);
  all.back().steps *= times;
  TRY(check(all.back()));
  // The quick bound says yes most of the time.
  if (rdp_spent(all, budget.delta).epsilon <= budget.epsilon) return {};
  const auto after = epsilon_spent(all, budget.delta);
  if (after.epsilon <= budget.epsilon) return {};
  const double spent = state_.debits.empty() ? 0 : std::min(before, state_.spent(budget.delta).epsilon);
  return fail(Code::kRefused, "privacy budget of data set {}: ε = {:.4g} is spent, {} more step(s) would make {:.4g} at δ = {:g}, and limits.privacy.epsilon_max is {:g}; "
              "fewer rounds, more noise (a smaller privacy.differential_privacy.epsilon), or other data",
              state_.dataset.substr(0, 12), spent, all.back().steps, after.epsilon, budget.delta, budget.epsilon);
}

Result<void> Ledger::debit(const Debit& debit, const Budget& budget) {
  TRY(affordable(debit.mechanism, 1, budget));
  auto record = debit;
  record.job = debit.job.substr(0, kMaxName);
  record.time = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  TRY(write(debit_json(record)));
  state_.debits.push_back(std::move(record));
  return {};
}

Result<LedgerState> read_ledger(const fs::path& ledger) {
  // A node that writes two records between our two reads makes them look like a ledger without an end.
  auto parsed = parse_files(ledger);
  for (int tries = 0; tries < 3 && !parsed; ++tries) parsed = parse_files(ledger);
  if (!parsed) return std::unexpected(parsed.error());
  return std::move(parsed->state);
}

Result<std::vector<fs::path>> ledgers_in(const fs::path& dir) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(dir, error), end; !error && at != end; at.increment(error))
    if (at->path().extension() == ".ledger") found.push_back(at->path());
  if (error && error != std::errc::no_such_file_or_directory) return fail(Code::kIo, "cannot read {}: {}", dir.string(), error.message());
  std::ranges::sort(found);
  return found;
}

}  // namespace preceptor::privacy
