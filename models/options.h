#pragma once
#include <map>
#include <string>

#include "common/options.h"

namespace preceptor::models {

/// Which network, as data: enough to build it, so it travels in plans and stands in model files.
struct ModelOptions {
  std::string name = "shufflenet_v2";
  double width = 1.0;          ///< multiplier of channel counts; the values a model knows are its own
  std::string stem = "small";  ///< standard: as published; half: a first /2 is left out; small: a /4, for 28–32 px
  std::string variant = "";    ///< published size, where an architecture has several; "": its smallest
  std::string normalisation = "batch";  ///< group: group norm where it has batch norm, as record-level privacy needs
  template <class V>
  void visit(V& v) {
    v("name", name);
    v("width", width, Range{0.05, 4});
    v("stem", stem, OneOf{"standard", "half", "small"});
    v("variant", variant);
    v("normalisation", normalisation, OneOf{"batch", "group"});
  }
};

/// What goes in and out of it.
struct TaskOptions {
  int classes = 2;          ///< of an image, or of a pixel with the background as class 0; 1: one map of logits (segmentation)
  int channels = 1;     ///< of an image: 1 or 3
  int image_size = 28;  ///< pixels a side
  template <class V>
  void visit(V& v) {
    v("classes", classes, Range{1, 100000});
    v("channels", channels, Range{1, 3});
    v("image_size", image_size, Range{8, 1024});
  }
};

/// How a network differs from its architecture as registered: what compression made of it, as data. Applied in this
/// order; layers and parameters are named as they are then called. All empty: nothing was done.
struct StructureOptions {
  bool fused = false;                           ///< Model::fuse was called: branches are one convolution each
  std::map<std::string, std::string> low_rank;  ///< layer → rank, or of a k×k convolution "rank out, rank in"
  std::map<std::string, std::string> shapes;    ///< parameter → shape, "32, 64, 3, 3"; no side longer than before
  std::map<std::string, std::string> lora;      ///< layer → rank; all that is not lora_up or the head is frozen
  std::map<std::string, std::string> int8;      ///< layer → "observed" or "learned" (Rounding)
  bool empty() const { return !fused && low_rank.empty() && shapes.empty() && lora.empty() && int8.empty(); }
  template <class V>
  void visit(V& v) {
    v("fused", fused);
    v("low_rank", low_rank);
    v("shapes", shapes);
    v("lora", lora);
    v("int8", int8);
  }
};

/// A network ready to be built. The metadata of a model file holds exactly this.
struct ModelSpec {
  ModelOptions model;
  TaskOptions task;
  StructureOptions structure = {};
  template <class V>
  void visit(V& v) {
    v("model", model);
    v("task", task);
    v("structure", structure);
  }
};

}  // namespace preceptor::models
