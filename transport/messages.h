#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "common/bytes.h"
#include "common/hash.h"

/// The only place where coordinator and node meet. Each message is a value; `encode_message` puts a version
/// and a type in front, `decode_message` reads bytes from a peer through an archive that checks every size
/// against the bytes that are there, caps every text and list, and refuses what is left over.
namespace preceptor::transport {

inline constexpr std::uint16_t kProtocolMinor = 4;  ///< 2: SiteReport has Dice; 3: model patches, fidelity, SecureAggregation; 4: Ready, rounds of patches, vouching; both sides must be the same
inline constexpr std::size_t kChunkBytes = 256 << 10;   ///< of a blob, in one Chunk
inline constexpr std::size_t kMaxText = 1 << 20;        ///< a plan; other texts are shorter
inline constexpr std::size_t kMaxName = 256;
inline constexpr std::size_t kMaxReason = 4 << 10;     ///< of Refused and Goodbye; longer ones are cut when sent

/// node → coordinator: first message of a connection.
struct Hello {
  std::uint16_t minor = kProtocolMinor;
};
/// coordinator → node: the plan of the whole job, as YAML that node::Plan reads.
struct Welcome {
  std::uint16_t minor = kProtocolMinor;
  std::string plan;
};
/// node → coordinator: the plan is accepted; this is what the site brings to it. After each Welcome.
struct Ready {
  std::uint64_t train_samples = 0;  ///< images, its weight in the mean; 1 where updates are masked, whatever their number
};
/// A step from one version of the global model to the next, to be fetched like any blob: how to apply it is the
/// plan's to say.
struct ModelPatch {
  Digest base{};   ///< of the model that it applies to
  Digest delta{};  ///< of its bytes
  std::uint64_t bytes = 0;
  std::uint32_t round = 0;  ///< that made it
};
inline constexpr std::size_t kMaxPatches = 16;
/// coordinator → node: take part in a round.
struct RoundStart {
  std::uint32_t round = 0;
  Digest model{};                 ///< SHA-256 of the blob to fetch: float32, little-endian, flat
  std::uint64_t model_bytes = 0;
  Digest architecture{};
  std::uint64_t deadline_ms = 0;  ///< time left until the round closes
  std::vector<ModelPatch> patches{};  ///< oldest first, of ascending rounds, each to the next one's base, the last to `model`
};
/// both ways: send me a piece of a blob, by content. The asker sets the pace, and resumes by asking on.
struct Fetch {
  Digest blob{};
  std::uint64_t offset = 0;
  std::uint32_t length = 0;  ///< at most kChunkBytes
};
/// both ways: the answer to Fetch.
struct Chunk {
  Digest blob{};
  std::uint64_t offset = 0;
  Bytes bytes;
};
/// What a stage of the node's codec left of the update: compression::Fidelity on the wire.
struct StageFidelity {
  std::string stage;
  double cosine = 0, norm_ratio = 0;
};
inline constexpr std::size_t kMaxStages = 16;
/// node → coordinator: an update is ready to be fetched. Weight, loss and fidelity are 0 or empty where the plan
/// lets nothing but sums be read.
struct UpdateOffer {
  std::uint32_t round = 0;
  Digest update{};
  std::uint64_t update_bytes = 0;
  Digest architecture{};
  std::uint64_t samples = 0;  ///< weight in the mean
  double train_loss = 0;
  std::vector<StageFidelity> fidelity{};
};
/// coordinator → node: the update is in the sum.
struct Accepted {
  std::uint32_t round = 0;
  Digest update{};
};
/// coordinator → node: it is not, and why. node → coordinator: this site takes no part in the round's secure aggregation.
struct Refused {
  std::uint32_t round = 0;
  std::string reason;
};
/// coordinator → node: the last round is over; fetch the final model and judge it.
struct Finish {
  std::uint32_t rounds = 0;
  Digest model{};
  std::uint64_t model_bytes = 0;
  std::vector<ModelPatch> patches{};
};
/// A metric with its 95 % interval; not defined when the site's test split cannot tell (one class only).
struct Estimate {
  bool defined = false;
  double value = 0, low = 0, high = 0;
};
/// node → coordinator: did federation help this site? Measured on its own test split.
struct SiteReport {
  std::uint64_t train = 0, validation = 0, test = 0;  ///< images
  Estimate local_auc, global_auc, personalised_auc;
  Estimate local_accuracy, global_accuracy, personalised_accuracy;
  Estimate local_dice, global_dice, personalised_dice;
  std::string chosen;    ///< "global" or "personalised", by validation
  std::string metric;    ///< "auc", "accuracy" or "dice": what the verdict compares
  double difference = 0; ///< chosen − local, with interval
  double difference_low = 0, difference_high = 0;
  double p_value = 1;    ///< paired bootstrap, two-sided
  std::string verdict;   ///< "federation helped", "no difference", "federation harmed"
};
/// coordinator → node: the report arrived, or the job ended; the node may go.
struct Goodbye {
  std::string reason;
};

/// both ways: a step of secure aggregation; its inside is privacy::decode_envelope's.
struct SecureAggregation {
  std::uint32_t round = 0;
  Bytes envelope;  ///< at most kMaxText
};

using Message = std::variant<Hello, Welcome, RoundStart, Fetch, Chunk, UpdateOffer, Accepted, Refused, Finish,
                             SiteReport, Goodbye, SecureAggregation, Ready>;

const char* message_name(const Message& message);
Bytes encode_message(const Message& message);
/// Error: kCorrupt, "UpdateOffer: short by 8 bytes".
Result<Message> decode_message(std::span<const std::byte> bytes);

}  // namespace preceptor::transport
