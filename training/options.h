#pragma once
#include "common/options.h"

namespace preceptor::training {

/// Random changes of a training image. All at 0: none.
struct AugmentOptions {
  double shift = 0;     ///< pixels, uniform in ±shift, both axes
  double rotate = 0;    ///< degrees, ±
  double scale = 0;     ///< relative, ±
  double contrast = 0;  ///< relative, ±, around the image's own mean
  double brightness = 0;  ///< of the full range, ±
  bool flip = false;      ///< left-right, every second time
  double erase = 0;       ///< side of an erased square, relative to the image's side
  template <class V>
  void visit(V& v) {
    v("shift", shift, Range{0, 64});
    v("rotate", rotate, Range{0, 180});
    v("scale", scale, Range{0, 0.9});
    v("contrast", contrast, Range{0, 0.9});
    v("brightness", brightness, Range{0, 0.9});
    v("flip", flip);
    v("erase", erase, Range{0, 1});
  }
};

/// Local training. The schedule runs over the whole job; a round is a piece of it.
struct TrainingOptions {
  std::string optimizer = "sgd";     ///< sgd (Nesterov momentum), adamw
  double learning_rate = 0.05;
  double momentum = 0.9;             ///< sgd; adamw uses β = 0.9, 0.999
  double weight_decay = 5e-4;        ///< on weights; not on biases nor normalisation
  std::string schedule = "cosine";   ///< cosine (to 1 %), step (÷10 at 50 % and 75 %), constant
  double warmup = 0;                 ///< share of the schedule with linearly rising rate
  double freeze_statistics = 1;      ///< share of the schedule after which batch norms' statistics and the ranges of
                                     ///< layers that round stay as they are; 1: never
  int epochs = 1;                    ///< passes over the images, in one call of the loop
  int batch = 32;
  double clip_norm = 0;              ///< gradient L2 at most; 0: no clipping
  double label_smoothing = 0;
  std::string class_weights = "none";  ///< none, balanced (inverse frequency)
  AugmentOptions augment;
  int views = 0;                     ///< distinct augmentations of an image; 0: new ones every epoch
  int threads = 1;                   ///< inside LibTorch; part of what makes a run reproducible
  std::string device = "cpu";        ///< cpu, cuda
  template <class V>
  void visit(V& v) {
    v("optimizer", optimizer, OneOf{"sgd", "adamw"});
    v("learning_rate", learning_rate, Range{0, 100});
    v("momentum", momentum, Range{0, 0.9999});
    v("weight_decay", weight_decay, Range{0, 10});
    v("schedule", schedule, OneOf{"cosine", "step", "constant"});
    v("warmup", warmup, Range{0, 0.9});
    v("freeze_statistics", freeze_statistics, Range{0, 1});
    v("epochs", epochs, Range{0, 100000});
    v("batch", batch, Range{2, 65536});
    v("clip_norm", clip_norm, Range{0, 1e9});
    v("label_smoothing", label_smoothing, Range{0, 0.9});
    v("class_weights", class_weights, OneOf{"none", "balanced"});
    v("augment", augment);
    v("views", views, Range{0, 1000});
    v("threads", threads, Range{1, 1024});
    v("device", device, OneOf{"cpu", "cuda"});
  }
};

}  // namespace preceptor::training
