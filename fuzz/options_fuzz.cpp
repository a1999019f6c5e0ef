// parse_yaml and read_options: text from a user or, as a plan, from a peer. What is accepted is
// written and read again. First line: a --set; the rest: the file.
#include <cstdlib>
#include <string_view>

#include "common/options.h"
#include "fuzz/fuzz.h"

using namespace preceptor;

namespace {

struct Inner {
  int epochs = 1;
  double rate = 0.1;
  template <class V>
  void visit(V& v) {
    v("epochs", epochs, Range{1, 100});
    v("rate", rate, Range{0, 1});
  }
};

struct Outer {
  std::uint64_t seed = 1;
  bool secure = false;
  std::string name;
  std::string mode = "mean";
  std::chrono::seconds deadline{120};
  Inner training;
  std::vector<double> weights;
  std::vector<Inner> phases;
  std::vector<std::map<std::string, std::string>> pipeline;
  template <class V>
  void visit(V& v) {
    v("seed", seed);
    v("secure", secure);
    v("name", name);
    v("mode", mode, OneOf{"mean", "median"});
    v("deadline", deadline);
    v("training", training);
    v("weights", weights);
    v("phases", phases);
    v("pipeline", pipeline);
  }
};

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (const std::string_view text :
       {"training.rate=0.5\nseed: 18446744073709551615\nsecure: true\nname: \"a\\nb\"\nmode: "
        "median\ndeadline: 30\n"
        "training: {epochs: 3}\nweights: [1, 2.5e-3]\nphases:\n  - epochs: 2\n  - {rate: 1}\n"
        "pipeline:\n  - {codec: topk, fraction: 0.1}\n  - codec: zstd\n",
        "weights=[1, {a: b}]\nname: &x [*x]\ntraining: &t {epochs: 1}\nphases: [*t, *t]\nseed: "
        "~\n? [k]\n: v\n",
        "training={epochs: 1}\nname: |\n  block\n  text\nmode: 'it''s'\n# comment\n---\nsecond: "
        "document\n"})
    all.emplace_back(text.begin(), text.end());
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto line = std::min(text.find('\n'), text.size());
  const auto file = text.substr(std::min(line + 1, text.size()));
  const auto node = parse_yaml(file, "fuzz", {text.substr(0, line)});
  if (!node) return 0;
  auto options = read_options<Outer>(*node, "fuzz");
  if (!options) return 0;
  const auto written = write_options(*options);
  const auto again_node = parse_yaml(written, "again");
  if (!again_node) std::abort();
  auto again = read_options<Outer>(*again_node, "again");
  if (!again || write_options(*again) != written) std::abort();
  return 0;
}
