#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/bytes.h"
#include "common/random.h"
#include "common/registry.h"

namespace preceptor::compression {

/// An update on its way through a pipeline: what is still floats, and what is already bytes.
/// Encoders take from `values` and put in front of `bytes`; decoders undo that in reverse order,
/// so each finds its own header at the front.
struct Packet {
  std::vector<float> values;
  Bytes bytes;

  void put_front(Bytes head) {
    head.insert(head.end(), bytes.begin(), bytes.end());
    bytes = std::move(head);
  }
  /// What a decoder does once it has read its part: `left` bytes are the earlier stages'.
  void drop_front(std::size_t left) {
    bytes.erase(bytes.begin(), bytes.end() - std::ptrdiff_t(left));
  }
};

/// One stage of the compression of an update tile. Stateless and thread-safe; state such as error
/// feedback lives with the node. Decoders trust nothing: a count is checked against `max_values`
/// and the bytes that are there before anything is allocated.
class Codec {
 public:
  virtual ~Codec() = default;
  /// Finite values only. `random` feeds stochastic rounding: the same stream gives the same bytes.
  virtual void encode(Packet& packet, RandomStream& random) const = 0;
  /// max_values: floats that a tile may have at most. Error: kCorrupt.
  virtual Result<void> decode(Packet& packet, std::size_t max_values) const = 0;
  /// E[decode(encode(x))] = x over the random stream; of eden as nearly as its comment says.
  virtual bool unbiased() const = 0;
  /// Floats still in the packet after encoding `values` > 0 of them: 0, or some for later stages.
  virtual std::size_t values_left(std::size_t values) const = 0;
  /// Works on floats: a pipeline refuses to place it where none are left.
  virtual bool wants_values() const = 0;
  /// Upper bound of bytes.size() after encoding `values` floats in front of `bytes` bytes.
  virtual std::size_t size_bound(std::size_t values, std::size_t bytes) const = 0;
};

/// How many values a stage's head announces. Error: kCorrupt, more than a tile has.
Result<std::size_t> take_count(ByteReader& reader, std::size_t max_values, const char* codec);
/// The i-th of a row of bf16 scales. Error: kCorrupt, negative or not finite.
Result<float> scale_at(std::span<const std::byte> scales, std::size_t i, const char* codec);

/// A codec's own keys, as they stand in YAML and travel in a plan.
using CodecSettings = std::map<std::string, std::string>;
using CodecFactory = std::function<Result<std::unique_ptr<Codec>>(const CodecSettings&)>;
Registry<CodecFactory>& codecs();
struct RegisterCodec {
  RegisterCodec(const char* name, CodecFactory factory) { codecs().add(name, std::move(factory)); }
};

}  // namespace preceptor::compression
