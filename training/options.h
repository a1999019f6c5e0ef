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

/// Record-level privacy by DP-SGD (Abadi 2016, arXiv:1607.00133): each image's gradient is clipped, their sum gets Gaussian
/// noise, and each step draws every image with the same probability, TrainingOptions::batch / images (Poisson sampling).
/// The unit that is protected is one image in one augmented view a step.
struct PrivateTrainingOptions {
  bool on = false;
  double clip_norm = 1;            ///< L2 that one image's gradient has at most; of adaptive clipping where it begins
  double noise_multiplier = 1;     ///< deviation of the noise over clip_norm; what an accountant takes
  std::string clipping = "fixed";  ///< fixed; adaptive: follows a quantile of the norms (Andrew 2021, arXiv:1905.03871)
  double target_quantile = 0.5;    ///< adaptive: share of images whose gradient stays as it is
  double clip_rate = 0.2;          ///< adaptive: step of log(clip_norm)
  double count_noise = 0;          ///< adaptive: deviation of the noise on the count of images below; 0: batch / 20
  int microbatch = 64;             ///< images in memory at once; no influence on the result but rounding
  std::string randomness = "system";  ///< of noise and sampling: system: OpenSSL's, secret; seeded: reproducible, for
                                      ///< simulations, as whoever has the seed can take the noise off
  template <class V>
  void visit(V& v) {
    v("on", on);
    v("clip_norm", clip_norm, Range{1e-6, 1e6});
    v("noise_multiplier", noise_multiplier, Range{0, 1e4});
    v("clipping", clipping, OneOf{"fixed", "adaptive"});
    v("target_quantile", target_quantile, Range{0.01, 0.99});
    v("clip_rate", clip_rate, Range{0, 2});
    v("count_noise", count_noise, Range{0, 1e6});
    v("microbatch", microbatch, Range{1, 65536});
    v("randomness", randomness, OneOf{"system", "seeded"});
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
  PrivateTrainingOptions record_privacy;  ///< DP-SGD instead of plain steps
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
    v("private", record_privacy);
  }
};

}  // namespace preceptor::training
