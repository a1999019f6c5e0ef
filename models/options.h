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
  template <class V>
  void visit(V& v) {
    v("name", name);
    v("width", width, Range{0.05, 4});
    v("stem", stem, OneOf{"standard", "half", "small"});
    v("variant", variant);
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

/// A network ready to be built. The metadata of a model file holds exactly this.
struct ModelSpec {
  ModelOptions model;
  TaskOptions task;
  template <class V>
  void visit(V& v) {
    v("model", model);
    v("task", task);
  }
};

}  // namespace preceptor::models
