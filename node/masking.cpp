#include "node/masking.h"

#include "common/file.h"
#include "common/log.h"
#include "compression/update/ring_words.h"

namespace preceptor::node {
namespace {

constexpr std::uint64_t kMaxState = 64 << 20;
constexpr std::uint64_t kMaxModel = std::uint64_t{8} << 30;

Result<void> expect_same(const privacy::SessionContext& is, const privacy::SessionContext& expected, const transport::RoundStart& told) {
  if (is.job != expected.job || is.suite != expected.suite || is.vectors != expected.vectors || is.k_min != expected.k_min ||
      is.colluders != expected.colluders || is.recomputed != expected.recomputed)
    return fail(Code::kRefused, "secure aggregation on other terms than the plan's");
  if (is.plan != expected.plan) return fail(Code::kRefused, "another plan than the one that this site accepted");
  if (is.round != told.round) return fail(Code::kRefused, "secure aggregation of round {}; this site was asked for round {}", is.round, told.round);
  if (is.model != told.model || is.architecture != told.architecture)
    return fail(Code::kRefused, "another model than the one that this site was given");
  return {};
}

}  // namespace

Result<void> Masking::begin(privacy::SessionContext expected) {
  if (!place_.signer || !place_.roster) return fail(Code::kRefused, "the plan masks updates, and this site has no identity to sign with");
  if (expected.k_min < limits_.k_min)
    return fail(Code::kRefused, "privacy.secure_aggregation.k_min: {}; limits.secure_aggregation.k_min is {}", expected.k_min, limits_.k_min);
  if (expected.colluders < limits_.colluders)
    return fail(Code::kRefused, "privacy.secure_aggregation.colluders: {}; limits.secure_aggregation.colluders is {}", expected.colluders, limits_.colluders);
  expected_ = std::move(expected);
  if (place_.folder.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(place_.folder, error);
  if (error) return fail(Code::kIo, "cannot make the folder {}: {}", place_.folder.string(), error.message());
  if (!std::filesystem::exists(place_.folder / "spent")) return {};
  const auto bytes = TRY(read_file(place_.folder / "spent", kMaxState));
  spent_ = TRY(privacy::SpentUpdates::restore(bytes));
  if (!std::filesystem::exists(place_.folder / "session")) return {};
  auto session = TRY(read_file(place_.folder / "session", kMaxState));
  const privacy::WipeLater wipe(session);
  party_ = TRY(privacy::Party::restore(session, *place_.signer, *place_.roster, spent_));
  if (party_->masked() && std::filesystem::exists(place_.folder / "masked")) masked_ = TRY(read_file(place_.folder / "masked", kMaxModel));
  return {};
}

Result<void> Masking::keep() const {
  if (place_.folder.empty()) return {};
  TRY(write_file(place_.folder / "spent", spent_.store(), 0600));
  auto session = party_->store();
  const privacy::WipeLater wipe(session);
  return write_file(place_.folder / "session", session, 0600);
}

Result<Bytes> Masking::hear(const transport::SecureAggregation& message, const transport::RoundStart* told) {
  if (!on()) return fail(Code::kRefused, "secure aggregation, which the plan does not speak of");
  const auto envelope = TRY(privacy::decode_envelope(message.envelope));
  if (const auto* invitation = std::get_if<privacy::Invitation>(&envelope.message)) return invited(invitation->context, told);
  if (!party_ || envelope.session != party_->session()) return fail(Code::kRefused, "a session that this site is not in");
  auto answer = TRY(party_->hear(message.envelope));
  TRY(keep());
  return answer;
}

Result<Bytes> Masking::invited(const privacy::SessionContext& context, const transport::RoundStart* told) {
  if (!told) return fail(Code::kRefused, "secure aggregation before a round");
  TRY(expect_same(context, *expected_, *told));
  if (party_ && party_->session() == context.digest()) return party_->advertise();  // asked again
  end();
  party_ = TRY(privacy::Party::create(context, {limits_.k_min, limits_.colluders}, place_.name, *place_.signer, *place_.roster, spent_));
  TRY(keep());
  return party_->advertise();
}

void Masking::end() {
  masked_.clear();
  if (!party_) return;
  party_->finish();
  if (const auto kept = keep(); !kept) spdlog::warn("secure aggregation: {}", kept.error().message);  // the next round's keep stops it
  party_.reset();
}

std::optional<Digest> Masking::vouched() const {
  if (!party_ || !party_->opened() || !party_->context().recomputed) return std::nullopt;
  return party_->context().model;
}

void Masking::keep_model(const HeldModel& model) const {
  if (place_.folder.empty()) return;
  if (const auto kept = write_file(place_.folder / "model", store(model, expected_->plan), 0600); !kept)
    spdlog::warn("the global model is not kept: {}; after a restart this site has to believe the coordinator's or other sites", kept.error().message);
}

std::optional<HeldModel> Masking::kept_model() const {
  const auto path = place_.folder / "model";
  if (place_.folder.empty() || !on() || !std::filesystem::exists(path)) return std::nullopt;
  const auto bytes = read_file(path, kMaxModel);
  auto model = bytes ? restore_model(*bytes, expected_->plan) : std::unexpected(bytes.error());
  if (model) return std::move(*model);
  spdlog::info("{}: {}; the coordinator's is fetched", path.string(), model.error().message);
  return std::nullopt;
}

Result<Bytes> Masking::mask(Bytes update, const transport::RoundStart& round, bool recomputed) {
  TRY(expect_same(party_->context(), *expected_, round));
  if (party_->masked()) {
    if (masked_.empty()) return fail(Code::kRefused, "the masked update of this round is lost; it is spent");
    return masked_;
  }
  const auto& vectors = expected_->vectors;
  const int bits = vectors[0].bits;
  const auto packed = compression::packed_size(vectors[0].words, bits);
  std::vector<std::uint32_t> words(vectors[0].words);
  compression::unpack_words(std::span(update).first(packed), words.size(), bits, [&](std::size_t first, std::span<const std::uint32_t> some) {
    std::ranges::copy(some, words.begin() + std::ptrdiff_t(first));
  });
  std::vector<std::uint64_t> totals(vectors.size() > 1 ? vectors[1].words : 0);
  if (update.size() != packed + 8 * totals.size()) return fail(Code::kInvalid, "an update of {} bytes to mask", update.size());
  std::memcpy(totals.data(), update.data() + packed, 8 * totals.size());
  std::vector<privacy::Words> all{std::span(words)};
  if (!totals.empty()) all.push_back(std::span(totals));
  const auto done = party_->mask(all, recomputed);
  OPENSSL_cleanse(update.data(), update.size());
  TRY(done);
  masked_ = compression::pack_words(words, bits);
  ByteWriter(masked_).put(std::as_bytes(std::span(totals)));
  if (!place_.folder.empty()) TRY(write_file(place_.folder / "masked", masked_, 0600));
  TRY(keep());
  return masked_;
}

}  // namespace preceptor::node
