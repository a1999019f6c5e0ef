#include "transport/messages.h"

#include "transport/archive.h"

namespace preceptor::transport {
namespace {

/// By position in Message, which is also the type on the wire less one: add at the end only.
constexpr const char* kNames[] = {"Hello",  "Welcome",     "RoundStart", "Fetch",
                                  "Chunk",  "UpdateOffer", "Accepted",   "Refused",
                                  "Finish", "SiteReport",  "Goodbye",    "SecureAggregation",
                                  "Ready"};
static_assert(std::size(kNames) == std::variant_size_v<Message>);

/// A reason may quote an error of any length; what is over the cap stays in the sender's log.
template <class A>
void reason(A& archive, std::string& text) {
  if constexpr (std::is_same_v<A, ArchiveWriter>) {
    auto head = text.substr(0, kMaxReason);
    archive(capped(head, kMaxReason));
  } else {
    archive(capped(text, kMaxReason));
  }
}

}  // namespace

template <class A>
void serialize(A& a, Hello& m) {
  a(m.minor);
}
template <class A>
void serialize(A& a, Ready& m) {
  a(m.train_samples);
}
template <class A>
void serialize(A& a, Welcome& m) {
  a(m.minor, capped(m.plan, kMaxText));
}
template <class A>
void serialize(A& a, ModelPatch& m) {
  a(m.base, m.delta, m.bytes, m.round);
}
template <class A>
void serialize(A& a, RoundStart& m) {
  a(m.round, m.model, m.model_bytes, m.architecture, m.deadline_ms, capped(m.patches, kMaxPatches));
}
template <class A>
void serialize(A& a, Fetch& m) {
  a(m.blob, m.offset, m.length);
  if (m.length > kChunkBytes)
    throw cereal::Exception(fmt::format("asks for {} bytes; at most {}", m.length, kChunkBytes));
}
template <class A>
void serialize(A& a, Chunk& m) {
  a(m.blob, m.offset, capped(m.bytes, kChunkBytes));
}
template <class A>
void serialize(A& a, StageFidelity& m) {
  a(capped(m.stage, kMaxName), m.cosine, m.norm_ratio);
}
template <class A>
void serialize(A& a, UpdateOffer& m) {
  a(m.round, m.update, m.update_bytes, m.architecture, m.samples, m.train_loss, capped(m.fidelity, kMaxStages));
}
template <class A>
void serialize(A& a, Accepted& m) {
  a(m.round, m.update);
}
template <class A>
void serialize(A& a, Refused& m) {
  a(m.round);
  reason(a, m.reason);
}
template <class A>
void serialize(A& a, Finish& m) {
  a(m.rounds, m.model, m.model_bytes, capped(m.patches, kMaxPatches));
}
template <class A>
void serialize(A& a, Estimate& m) {
  a(m.defined, m.value, m.low, m.high);
}
template <class A>
void serialize(A& a, SiteReport& m) {
  a(m.train, m.validation, m.test, m.local_auc, m.global_auc, m.personalised_auc, m.local_accuracy,
    m.global_accuracy, m.personalised_accuracy, m.local_dice, m.global_dice, m.personalised_dice, capped(m.chosen, kMaxName),
    capped(m.metric, kMaxName), m.difference, m.difference_low, m.difference_high, m.p_value,
    capped(m.verdict, kMaxName));
}
template <class A>
void serialize(A& a, Goodbye& m) {
  reason(a, m.reason);
}
template <class A>
void serialize(A& a, SecureAggregation& m) {
  a(m.round, capped(m.envelope, kMaxText));
}

namespace {

using ReadBody = Message (*)(ArchiveReader&);
template <class T>
Message read_body(ArchiveReader& reader) {
  T message;
  reader(message);
  reader.finish();
  return message;
}
template <class... T>
constexpr std::array<ReadBody, sizeof...(T)> readers(const std::variant<T...>*) {
  return {&read_body<T>...};
}
constexpr auto kReaders = readers(static_cast<const Message*>(nullptr));

}  // namespace

const char* message_name(const Message& message) { return kNames[message.index()]; }

Bytes encode_message(const Message& message) {
  Bytes out;
  ArchiveWriter writer(out);
  writer(kProtocolMinor, std::uint8_t(message.index() + 1));
  std::visit([&](const auto& body) { writer(body); }, message);
  return out;
}

Result<Message> decode_message(std::span<const std::byte> bytes) {
  const char* name = "message";
  try {
    ArchiveReader reader(bytes);
    std::uint16_t minor = 0;
    std::uint8_t type = 0;
    reader(minor, type);
    if (minor != kProtocolMinor)
      return fail(Code::kCorrupt, "message of protocol fl/1.{}; this program knows up to fl/1.{}",
                  minor, kProtocolMinor);
    if (type == 0 || type > kReaders.size())
      return fail(Code::kCorrupt, "message of unknown type {}", type);
    name = kNames[type - 1];
    return kReaders[type - 1](reader);
  } catch (const cereal::Exception& error) {
    return fail(Code::kCorrupt, "{}: {}", name, error.what());
  }
}

}  // namespace preceptor::transport
