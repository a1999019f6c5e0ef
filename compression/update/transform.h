#pragma once
#include "common/parameter_space.h"
#include "compression/update/codec.h"

namespace preceptor::compression {

/// A first stage that needs more than a tile: the pieces' shapes, or memory from round to round. It
/// turns an update into other floats, fewer of them, which then go through the pipeline:
///
///   node          update ── encode ──► coded ── pipeline ──► bytes        memory: the node's
///   coordinator   bytes ── pipeline ──► coded ── decode ──► update        each update, no memory
///     linear:     … coded ──► sum of all nodes' ── decode ──► update      once a round, its memory
///
/// Immutable; thread-safe.
class Transform {
 public:
  using Memory = std::vector<float>;  ///< empty at first; what the last call left there
  using Fold = std::function<Result<void>(std::size_t, std::span<const float>)>;

  virtual ~Transform() = default;
  virtual std::size_t coded_size() const = 0;  ///< floats, whatever the update
  /// encode(a) + encode(b) = encode(a + b), but for rounding: the coordinator adds up coded floats
  /// and decodes their mean. Error feedback then belongs to the coordinator.
  virtual bool linear() const = 0;
  /// update: all pieces, one after the other, finite. Returns [coded_size()], which an update far out
  /// of range can leave not finite.
  virtual std::vector<float> encode(std::span<const float> update, std::uint64_t seed,
                                    Memory& memory) const = 0;
  /// Calls fold(offset, floats) for all of the update in order. coded: [coded_size()].
  virtual Result<void> decode(std::span<const float> coded, Memory& memory,
                              const Fold& fold) const = 0;
};

/// Made with a stage's own keys for the pieces that it will be given.
using TransformFactory = std::function<Result<std::unique_ptr<Transform>>(
    const CodecSettings&, const std::vector<Piece>&)>;
Registry<TransformFactory>& transforms();
struct RegisterTransform {
  RegisterTransform(const char* name, TransformFactory factory) {
    transforms().add(name, std::move(factory));
  }
};

}  // namespace preceptor::compression
