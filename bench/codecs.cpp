// What it costs to code an update for the wire and back, on one thread, beside a memcpy of the same
// floats in the same run: all take turns, medians. GB/s are of float32 input, in processor time.
// Transforms are measured alone, what they leave as float32; FetchSGD's decode comes once a round.
//   build/release/bench_codecs [--quick] [--repeats N] [NAME …]      (also builds without LibTorch)
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compression/update/hadamard.h"
#include "compression/update/pipeline.h"
#include "compression/update/transform.h"

namespace {

using namespace preceptor;
using namespace preceptor::compression;

/// Of processor time: on one thread the same as time, but for what others on the machine take.
double seconds(const std::function<void()>& work) {
  timespec start{}, end{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  work();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec);
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + std::ptrdiff_t(values.size() / 2));
  return values[values.size() / 2];
}

/// Gaussian values whose scale changes every 1000 floats, as layers differ in a real update.
std::vector<float> made_update(std::size_t count) {
  RandomStream random(1, "bench/codecs");
  std::vector<float> values(count);
  double scale = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 1000 == 0) scale = std::pow(10.0, random.uniform(-4, -1));
    values[i] = float(scale * random.normal());
  }
  return values;
}

/// Pieces of a ResNet-50 (He 2015, arXiv:1512.03385) as narrow as `floats` asks for: the classifier
/// takes what rounding of the widths leaves, and one float in 500 is a norm's scale or shift.
std::vector<Piece> resnet(std::size_t floats) {
  const auto width = [&](int channels) {
    return std::int64_t(channels * std::sqrt(double(floats) / 25.6e6));
  };
  ParameterSpace space;
  const auto add = [&](std::vector<std::int64_t> shape) {
    space.add(std::to_string(space.pieces().size()), std::move(shape), Role::kWeight);
  };
  auto in = width(64);
  add({in, 3, 7, 7});
  const int blocks[] = {3, 4, 6, 3};
  for (int stage = 0; stage < 4; ++stage) {
    const auto middle = width(64 << stage), out = width(256 << stage);
    for (int block = 0; block < blocks[stage]; ++block, in = out) {
      if (block == 0) add({out, in, 1, 1});
      add({middle, in, 1, 1});
      add({middle, middle, 3, 3});
      add({out, middle, 1, 1});
    }
  }
  add({std::int64_t(floats - space.size() - floats / 500) / in, in});
  add({std::int64_t(floats - space.size())});
  return space.pieces();
}

/// One way to code an update.
class Scheme {
 public:
  virtual ~Scheme() = default;
  virtual void encode(std::span<const float> update) = 0;  ///< keeps what comes out
  virtual void decode(const Transform::Fold& fold) = 0;
  virtual std::size_t bytes() const = 0;
};

class Stages : public Scheme {
 public:
  Stages(const std::vector<CodecSettings>& stages, std::size_t floats)
      : pipeline_(Pipeline::create(stages).value()), floats_(floats) {}
  void encode(std::span<const float> update) override { bytes_ = pipeline_.encode(update, 1); }
  void decode(const Transform::Fold& fold) override {
    pipeline_.decode(bytes_, floats_, fold).value();
  }
  std::size_t bytes() const override { return bytes_.size(); }

 private:
  Pipeline pipeline_;
  std::size_t floats_;
  Bytes bytes_;
};

/// Encoding starts from what the last one left, as in the rounds of a job; decoding from nothing.
class Transformed : public Scheme {
 public:
  Transformed(const CodecSettings& settings, std::size_t floats) {
    auto own = settings;
    own.erase("codec");
    transform_ = (**transforms().find(settings.at("codec")))(own, resnet(floats)).value();
  }
  void encode(std::span<const float> update) override {
    coded_ = transform_->encode(update, 1, memory_);
  }
  void decode(const Transform::Fold& fold) override {
    Transform::Memory none;
    transform_->decode(coded_, none, fold).value();
  }
  std::size_t bytes() const override { return coded_.size() * sizeof(float); }

 private:
  std::unique_ptr<Transform> transform_;
  Transform::Memory memory_;
  std::vector<float> coded_;
};

struct Row {
  std::string name;
  std::vector<CodecSettings> stages;
  std::unique_ptr<Scheme> scheme = {};
  std::vector<double> encode = {}, decode = {};
};

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  const auto add = [&](std::string name, const std::vector<CodecSettings>& stages) {
    rows.push_back({std::move(name), stages});
  };
  const CodecSettings zstd{{"codec", "zstd"}}, fp16{{"codec", "cast16"}, {"format", "fp16"}};
  const auto eden = [](const char* bits) { return CodecSettings{{"codec", "eden"}, {"bits", bits}}; };
  add("fp32", {});
  add("fp32, zstd", {zstd});
  add("cast16", {fp16});
  for (const auto* bits : {"1", "2", "3", "4"}) add(std::string("eden ") + bits, {eden(bits)});
  add("eden 2, zstd", {eden("2"), zstd});
  add("eden 4, zstd", {eden("4"), zstd});
  add("quantize 8", {{{"codec", "quantize"}, {"bits", "8"}}});
  add("quantize 4", {{{"codec", "quantize"}, {"bits", "4"}}});
  add("quantize 4, zstd", {{{"codec", "quantize"}, {"bits", "4"}}, zstd});
  add("qsgd 7", {{{"codec", "qsgd"}, {"levels", "7"}}});
  add("sign", {{{"codec", "sign"}}});
  add("topk 10 %", {{{"codec", "topk"}, {"fraction", "0.1"}}});
  add("topk 1 %", {{{"codec", "topk"}, {"fraction", "0.01"}}});
  add("topk 1 %, fp16", {{{"codec", "topk"}, {"fraction", "0.01"}}, fp16});
  add("topk 0.1 %", {{{"codec", "topk"}, {"fraction", "0.001"}}});
  for (const auto* rank : {"1", "4"})
    add(std::string("powersgd ") + rank, {{{"codec", "powersgd"}, {"rank", rank}}});
  add("fetchsgd", {{{"codec", "fetchsgd"}}});
  return rows;
}

double vnmse(Scheme& scheme, std::span<const float> update) {
  double lost = 0, all = 0;
  scheme.decode([&](std::size_t offset, std::span<const float> decoded) -> Result<void> {
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      const double value = update[offset + i], error = value - decoded[i];
      lost += error * error;
      all += value * value;
    }
    return {};
  });
  return lost / all;
}

void measure(std::size_t floats, int repeats, std::vector<Row> rows) {
  const auto update = made_update(floats);
  for (auto& row : rows) {
    if (transforms().find(row.stages.empty() ? "" : row.stages[0].at("codec")))
      row.scheme = std::make_unique<Transformed>(row.stages[0], floats);
    else
      row.scheme = std::make_unique<Stages>(row.stages, floats);
  }
  std::vector<float> copy(floats), rotated(floats);
  std::vector<double> memcpy_times, rotate_times;
  const auto keep = [](std::size_t, std::span<const float>) -> Result<void> { return {}; };
  for (int run = 0; run <= repeats; ++run) {  // the first warms up
    const auto copied = seconds([&] { std::memcpy(copy.data(), update.data(), floats * 4); });
    rotated = update;
    const auto rotation_time = seconds([&] {
      RandomStream signs(std::uint64_t(run), "bench/rotation");
      RandomRotation(floats, 8192, signs).apply(rotated);
    });
    if (run > 0) memcpy_times.push_back(copied), rotate_times.push_back(rotation_time);
    for (auto& row : rows) {
      const auto encode = seconds([&] { row.scheme->encode(update); });
      const auto decode = seconds([&] { row.scheme->decode(keep); });
      if (run > 0) row.encode.push_back(encode), row.decode.push_back(decode);
    }
  }
  const auto gigabytes = double(floats) * 4e-9;
  const auto copy_speed = gigabytes / median(memcpy_times);
  std::printf("\n%.1f M floats, %s, median of %d\n", double(floats) / 1e6, simd_target(), repeats);
  std::printf("%-18s %8s %9s %9s %9s %9s %9s\n", "codec", "bits", "vNMSE", "encode", "of copy",
              "decode", "of copy");
  std::printf("%-18s %8s %9s %9.2f %9.2f\n", "memcpy", "32", "", copy_speed, 1.0);
  const auto rotation_speed = gigabytes / median(rotate_times);
  std::printf("%-18s %8s %9s %9.2f %9.2f\n", "rotation", "32", "", rotation_speed,
              rotation_speed / copy_speed);
  for (auto& row : rows) {
    const auto encode = gigabytes / median(row.encode), decode = gigabytes / median(row.decode);
    std::printf("%-18s %8.3f %9.2e %9.2f %9.2f %9.2f %9.2f\n", row.name.c_str(),
                double(row.scheme->bytes()) * 8 / double(floats), vnmse(*row.scheme, update),
                encode, encode / copy_speed, decode, decode / copy_speed);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int repeats = 9;
  bool quick = false;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--quick") quick = true;
    else if (word == "--repeats" && i + 1 < argc) repeats = std::max(1, std::atoi(argv[++i]));
    else names.push_back(word);
  }
  const auto chosen = [&] {
    auto rows = all_rows();
    std::erase_if(rows, [&](const Row& row) {
      return !names.empty() && std::ranges::none_of(names, [&](const std::string& name) {
        return row.name.starts_with(name);
      });
    });
    return rows;
  };
  std::printf("GB/s of float32 input on one thread; memcpy counts its input once\n");
  measure(1'000'000, repeats, chosen());
  if (!quick) measure(25'000'000, std::max(1, repeats / 3), chosen());
}
