#pragma once
#include <functional>

#include "common/options.h"
#include "common/registry.h"
#include "data/dataset.h"

namespace preceptor::data {

enum class Split : std::uint8_t { kTrain, kValidation, kTest, kUnassigned };

/// The procedural generator's knobs; see data/phantom.cpp for what each does to an image.
struct PhantomOptions {
  int images = 1200;  ///< in all, over all sites and splits
  int sites = 4;
  int classes = 2;          ///< 2 (healthy, lesion) … 4 (lesion kinds)
  double site_shift = 0.5;  ///< 0: all sites alike … 1: strong contrast, noise, blur differences
  double difficulty = 0.5;  ///< 0: lesions stand out … 1: near the noise
  template <class V>
  void visit(V& v) {
    v("images", images, Range{16, 1e6});
    v("sites", sites, Range{1, 4096});
    v("classes", classes, Range{2, 4});
    v("site_shift", site_shift, Range{0, 1});
    v("difficulty", difficulty, Range{0, 1});
  }
};

/// Where images come from: `kind` is a registered reader's name.
struct SourceOptions {
  std::string kind = "phantom";  ///< phantom, medmnist, folder, masks
  std::string path;              ///< file or folder; unused by phantom
  int image_size = 28;      ///< images are brought to image_size × image_size (area resampling)
  int channels = 1;         ///< 1 or 3; grey is repeated, RGB is weighted to luma
  std::string masks = "instance";  ///< of kind masks: every object its own number, or each pixel its class
  int classes = 0;  ///< of masks: class, the background among them; 0: as many as occur here
  int max_unreadable = 16;  ///< images that may be skipped before reading is refused
  std::uint64_t max_bytes = std::uint64_t{8} << 30;  ///< decoded pixels at most
  PhantomOptions phantom;
  template <class V>
  void visit(V& v) {
    v("kind", kind);
    v("path", path);
    v("image_size", image_size, Range{8, 1024});
    v("channels", channels, Range{1, 3});
    v("masks", masks, OneOf{"instance", "class"});
    v("classes", classes, Range{0, 256});
    v("max_unreadable", max_unreadable, Range{0, 1e9});
    v("max_bytes", max_bytes, Range{1, 1e15});
    v("phantom", phantom);
  }
};

/// What a reader hands out: every image with what is known of its split and site.
struct Source {
  Dataset images;
  std::vector<Split> splits;            ///< [N]
  std::vector<std::int32_t> sites;      ///< [N], index into site_names, -1: unknown
  std::vector<std::string> site_names;  ///< empty when the source knows no sites
  std::vector<std::string> skipped;     ///< "path: why" of each unreadable image
};

using Reader = std::function<Result<Source>(const SourceOptions&, std::uint64_t seed)>;
Registry<Reader>& readers();
struct RegisterReader {
  RegisterReader(const char* name, Reader reader) { readers().add(name, std::move(reader)); }
};

/// Reads the whole source with the reader named by options.kind.
Result<Source> read_source(const SourceOptions& options, std::uint64_t seed);

}  // namespace preceptor::data
