#pragma once
#include <fmt/format.h>

#include "deploy/engine_plan.h"

/// How a plan is made: walked through twice, first to learn lifetimes, then with the arena that follows from them.
namespace preceptor::deploy {

/// One tensor's memory.
struct Buffer {
  std::size_t bytes = 0;
  int first = -1, last = -1;           ///< steps
  std::size_t offset = 0;              ///< into the arena
  const float* constant = nullptr;     ///< not in the arena
};

class Planner {
 public:
  /// arena null: the first walk.
  Planner(const Program& program, std::int64_t batch, const Fallback& fallback, std::byte* arena, std::vector<Buffer> placed);
  void walk();

  std::vector<Step> steps;
  std::vector<Buffer> buffers;
  View image, logits;
  float* floats(const View& view) const { return reinterpret_cast<float*>(memory(view.buffer)) + view.offset; }
  std::uint8_t* bytes(const View& view) const { return reinterpret_cast<std::uint8_t*>(memory(view.buffer)) + view.offset; }

 private:
  std::byte* memory(int buffer) const;
  int new_buffer(std::int64_t elements, std::size_t size);
  View allocate(const Dims& sizes, Dims strides, std::size_t size = sizeof(float));
  View constant(const Value& value);
  /// The value; what is computed has been computed.
  const View& of(int value) const { return views_[std::size_t(value)]; }
  Dims sizes(int value) const { return program_.values[std::size_t(value)].at(batch_); }
  std::int64_t at_batch(double k) const;
  void give(int value, View view) { views_[std::size_t(value)] = std::move(view); }
  void step(std::string text, std::initializer_list<const View*> touched, std::function<void()> run);
  void touch(const View& view);

  /// Result of a layer: a slice of the concatenation that takes it, where there is one; else dense, channels fastest.
  View layer_output(int value, bool channels_first);
  /// With channels (4-D) or the last dimension lying together, copied if they do not.
  View with_rows(const View& view, bool channels_first);
  View copied(const View& view, Dims strides, const char* why);
  void copy(const View& from, const View& to, const char* why);

  void run(const Operator& op);
  bool run_view(const Operator& op);
  bool run_elementwise(const Operator& op);
  bool run_rows(const Operator& op);
  void run_fallback(const Operator& op);
  void reshape(const Operator& op);
  void concatenate(const Operator& op, bool stack);
  void pad(const Operator& op);
  void convolution(const Operator& op);
  bool few_channels(const Operator& op);
  void linear(const Operator& op);
  void matmul(const Operator& op);
  bool pool(const Operator& op);
  void reduce(const Operator& op, bool mean);
  void softmax(const Operator& op);
  kernels::Epilogue epilogue(const Operator& op, const std::optional<View>& out, const std::optional<View>& grid, const std::optional<View>& residual);
  /// What a layer writes: floats, grid; and what it adds.
  struct Ends {
    std::optional<View> out, grid, residual;
    kernels::Epilogue epilogue;
  };
  Ends ends(const Operator& op, bool channels_first);
  void finish_layer(const Operator& op, const Ends& ends, const View& in, const std::string& text, std::function<void()> run);
  void find_placements();

  const Program& program_;
  std::int64_t batch_;
  const Fallback& fallback_;
  std::byte* arena_;
  std::vector<Buffer> placed_;
  std::vector<View> views_;
  std::map<const Constant*, int> constants_;
  struct Placement {
    int whole;
    std::int64_t channel;
  };
  std::map<int, Placement> placements_;
};

}  // namespace preceptor::deploy
