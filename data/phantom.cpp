// Reader "phantom": procedural images of several hospitals, crude as ultrasound or X-ray goes, for
// demos, tests and benchmarks without a download. A picture is: soft organs on a dark ground,
// low-frequency texture, vessels, a few harmless bright dots, and (unless healthy) one lesion; then
// the hospital's scanner.
//
// site_shift   spreads what the hospitals differ in: gain, gamma, blur, noise, tint, size, class
// shares. difficulty   lowers a lesion's contrast and size.
//
// Every image has its own random stream, and only + − × ÷ and libm are used, not OpenCV's vector
// code: so one seed gives the same bytes on every x86-64 machine.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/random.h"
#include "data/deal.h"
#include "data/source.h"

namespace preceptor::data {
namespace {

constexpr double kPi = std::numbers::pi;

enum Lesion { kHealthy, kNodule, kCyst, kMass };

double mix(double a, double b, double t) { return a + (b - a) * t; }
double smooth(double t) { return t * t * (3 - 2 * t); }
// 1 inside, 0 outside, soft over `width` around distance 0.
double inside(double distance, double width) {
  return smooth(std::clamp(0.5 - distance / width, 0.0, 1.0));
}

// A hospital's scanner and patients. At shift 0 all are the same.
struct Scanner {
  double gain, offset, gamma, blur, noise, speckle, tint;
  double size;                       // weight among the sites
  std::array<double, 4> prevalence;  // weight by lesion

  Scanner(std::uint64_t seed, std::uint64_t site, double shift) {
    RandomStream random(seed, "phantom/site", {site});
    const auto spread = [&](double width) { return shift * random.uniform(-width, width); };
    gain = 1 + spread(0.45);
    offset = spread(0.12);
    gamma = std::exp(spread(0.6));
    blur = 0.012 * (1 + spread(1.0));
    noise = 0.045 * std::exp(spread(0.9));
    speckle = std::clamp(0.5 + spread(1.0), 0.0, 1.0);
    tint = spread(0.4);
    size = std::exp(spread(1.2));
    for (auto& p : prevalence) p = std::exp(spread(1.2));
  }
};

// A grey image under construction; positions are in 0 … 1, row by row.
class Canvas {
 public:
  explicit Canvas(int size) : size_(size), pixels_(std::size_t(size) * size) {}
  int size() const { return size_; }
  std::vector<double>& pixels() { return pixels_; }
  double pixel_width() const { return 1.0 / size_; }

  // value = paint(x, y, value) over the square of half width `reach` around (cx, cy).
  template <class Paint>
  void each(double cx, double cy, double reach, Paint paint) {
    const auto low = [&](double c) {
      return std::clamp(int(std::floor((c - reach) * size_)), 0, size_);
    };
    const auto high = [&](double c) {
      return std::clamp(int(std::ceil((c + reach) * size_)), 0, size_);
    };
    for (int row = low(cy), rows = high(cy); row < rows; ++row)
      for (int column = low(cx), columns = high(cx); column < columns; ++column) {
        auto& value = pixels_[std::size_t(row) * size_ + column];
        value = paint((column + 0.5) / size_, (row + 0.5) / size_, value);
      }
  }

  // Gaussian by three box passes each way would be faster; this is exact and fast enough.
  void blur(double sigma) {
    const int radius = int(std::ceil(2.5 * sigma * size_));
    std::vector<double> kernel;
    double sum = 0;
    for (int k = -radius; k <= radius; ++k) {
      kernel.push_back(std::exp(-0.5 * std::pow(k / (sigma * size_), 2)));
      sum += kernel.back();
    }
    for (auto& k : kernel) k /= sum;
    std::vector<double> other(pixels_.size());
    for (int pass = 0; pass < 2; ++pass) {  // along rows, written transposed; twice is both ways
      for (int row = 0; row < size_; ++row)
        for (int column = 0; column < size_; ++column) {
          double value = 0;
          for (int k = -radius; k <= radius; ++k)
            value +=
                kernel[k + radius] * pixels_[row * size_ + std::clamp(column + k, 0, size_ - 1)];
          other[column * size_ + row] = value;
        }
      pixels_.swap(other);
    }
  }

 private:
  int size_;
  std::vector<double> pixels_;
};

struct Ellipse {
  double x, y, a, b, cosine, sine;
  Ellipse(double cx, double cy, double ra, double rb, double angle)
      : x(cx), y(cy), a(ra), b(rb), cosine(std::cos(angle)), sine(std::sin(angle)) {}
  // Approximate signed distance from the outline, negative inside.
  double distance(double px, double py) const {
    const double u = ((px - x) * cosine + (py - y) * sine) / a;
    const double v = ((py - y) * cosine - (px - x) * sine) / b;
    return (std::sqrt(u * u + v * v) - 1) * std::min(a, b);
  }
};

// Smooth noise of about unit range on a grid of `cells` cells.
void texture(Canvas& canvas, RandomStream& random, int cells, double amplitude) {
  std::vector<double> grid(std::size_t(cells + 1) * (cells + 1));
  for (auto& g : grid) g = random.uniform(-1, 1);
  canvas.each(0.5, 0.5, 0.5, [&](double x, double y, double value) {
    const double u = x * cells, v = y * cells;
    const auto i = std::size_t(u), j = std::size_t(v);
    const auto* corner = &grid[j * (cells + 1) + i];
    const double s = smooth(u - double(i)), t = smooth(v - double(j));
    return value + amplitude * mix(mix(corner[0], corner[1], s),
                                   mix(corner[cells + 1], corner[cells + 2], s), t);
  });
}

void vessel(Canvas& canvas, RandomStream& random) {
  double x = random.uniform(0.15, 0.85), y = random.uniform(0.15, 0.85),
         angle = random.uniform(0, 2 * kPi);
  double width = random.uniform(0.012, 0.026);
  const double bend = random.uniform(-0.35, 0.35), bright = random.uniform(0.05, 0.16);
  const int steps = 10 + int(random.below(12));
  std::vector<double> ink(canvas.pixels().size());
  for (int step = 0; step < steps; ++step, width *= 0.97) {
    const double reach = std::max(width, 0.5 * canvas.pixel_width());
    canvas.each(x, y, 2 * reach + canvas.pixel_width(), [&](double px, double py, double value) {
      const double d = std::hypot(px - x, py - y);
      auto& drop =
          ink[std::size_t(py * canvas.size()) * canvas.size() + std::size_t(px * canvas.size())];
      drop = std::max(drop, (width / reach) * std::exp(-0.5 * d * d / (reach * reach)));
      return value;
    });
    x += 0.03 * std::cos(angle), y += 0.03 * std::sin(angle);
    angle += 0.2 * bend + random.uniform(-0.12, 0.12);
  }
  for (std::size_t i = 0; i < ink.size(); ++i) canvas.pixels()[i] += bright * ink[i];
}

void lesion(Canvas& canvas, RandomStream& random, Lesion kind, const Ellipse& body,
            double difficulty) {
  const double angle = random.uniform(0, 2 * kPi), where = 0.68 * std::sqrt(random.uniform());
  const double u = body.a * where * std::cos(angle), v = body.b * where * std::sin(angle);
  const double cx = body.x + u * body.cosine - v * body.sine,
               cy = body.y + u * body.sine + v * body.cosine;
  const double radius = random.uniform(0.075, 0.13) * mix(1.2, 0.85, difficulty);
  const double contrast = mix(0.34, 0.06, difficulty) * random.uniform(0.55, 1.3);
  std::array<double, 10> amplitude{}, phase{};  // of the outline, by angular frequency
  for (std::size_t k = 2; k < amplitude.size(); ++k) {
    amplitude[k] = random.uniform(0, kind != kMass ? 0.12 / double(k) : k < 6 ? 0.10 : 0.16);
    phase[k] = random.uniform(0, 2 * kPi);
  }
  const double edge = std::max(canvas.pixel_width(), kind == kNodule ? 0.8 * radius : 0.3 * radius);
  canvas.each(cx, cy, 2.2 * radius, [&](double x, double y, double value) {
    const double theta = std::atan2(y - cy, x - cx);
    double outline = radius;
    for (std::size_t k = 2; k < amplitude.size(); ++k)
      outline += radius * amplitude[k] * std::cos(double(k) * theta + phase[k]);
    const double d = std::hypot(x - cx, y - cy) - outline;
    if (kind == kCyst) {
      const double rim = inside(std::abs(d + 0.1 * radius) - 0.18 * radius, edge);
      return value + contrast * (0.7 * rim - 0.6 * inside(d + 0.3 * radius, edge));
    }
    return value + contrast * inside(d, edge);
  });
}

void scan(Canvas& canvas, RandomStream& random, const Scanner& scanner) {
  canvas.blur(scanner.blur);
  for (auto& value : canvas.pixels()) {
    const double grain = random.normal() * mix(1, 2.2 * std::max(value, 0.0), scanner.speckle);
    const double seen = std::clamp(value + scanner.noise * grain, 0.0, 1.0);
    value = std::clamp(scanner.offset + scanner.gain * std::pow(seen, scanner.gamma), 0.0, 1.0);
  }
}

Canvas render(RandomStream random, Lesion kind, const Scanner& scanner, int size,
              double difficulty) {
  Canvas canvas(size);
  const Ellipse body(random.uniform(0.46, 0.54), random.uniform(0.46, 0.54),
                     random.uniform(0.40, 0.50), random.uniform(0.36, 0.46),
                     random.uniform(0, kPi));
  const double tissue = random.uniform(0.26, 0.36);
  std::vector<std::pair<Ellipse, double>> organs;
  for (auto n = 2 + random.below(3); n > 0; --n) {
    const Ellipse organ(random.uniform(0.2, 0.8), random.uniform(0.2, 0.8),
                        random.uniform(0.10, 0.26), random.uniform(0.08, 0.2),
                        random.uniform(0, kPi));
    organs.emplace_back(organ, random.uniform(-0.12, 0.12));
  }
  canvas.each(0.5, 0.5, 0.5, [&](double x, double y, double) {
    double value = tissue;
    for (const auto& [organ, bright] : organs) value += bright * inside(organ.distance(x, y), 0.06);
    return value;
  });
  texture(canvas, random, 3, 0.06);
  texture(canvas, random, 8, 0.045);
  for (auto n = 2 + random.below(3); n > 0; --n) vessel(canvas, random);
  for (auto n = random.below(4); n > 0; --n) {  // harmless: vessels seen end-on, calcifications
    const double x = random.uniform(0.2, 0.8), y = random.uniform(0.2, 0.8),
                 r = random.uniform(0.015, 0.035);
    const double bright = random.uniform(0.08, 0.25);
    canvas.each(x, y, 3 * r, [&](double px, double py, double value) {
      return value +
             bright * std::exp(-0.5 * ((px - x) * (px - x) + (py - y) * (py - y)) / (r * r));
    });
  }
  if (kind != kHealthy) lesion(canvas, random, kind, body, difficulty);
  const double tilt = random.uniform(-0.2, 0.2), turn = random.uniform(0, 2 * kPi);
  canvas.each(0.5, 0.5, 0.5, [&](double x, double y, double value) {
    const double shade = 1 + tilt * ((x - 0.5) * std::cos(turn) + (y - 0.5) * std::sin(turn));
    return 0.03 + value * shade * inside(body.distance(x, y), 0.08);
  });
  scan(canvas, random, scanner);
  return canvas;
}

Result<Source> draw_phantoms(const SourceOptions& options, std::uint64_t seed) {
  const auto& knobs = options.phantom;
  const auto classes = std::size_t(knobs.classes);
  if (knobs.images < knobs.sites)
    return fail(Code::kInvalid, "data.phantom: {} images for {} sites", knobs.images, knobs.sites);
  Source source;
  auto& images = source.images;
  images.height = images.width = options.image_size;
  images.channels = options.channels;
  images.classes = classes == 2 ? std::vector<std::string>{"healthy", "lesion"}
                                : std::vector<std::string>{"healthy", "nodule", "cyst", "mass"};
  images.classes.resize(classes);
  if (std::uint64_t(knobs.images) * images.image_bytes() > options.max_bytes)
    return fail(Code::kRefused, "data.phantom: {} images of {} bytes are over data.max_bytes ({})",
                knobs.images, images.image_bytes(), options.max_bytes);

  std::vector<Scanner> scanners;
  Weights sizes(1), prevalence;
  for (int s = 0; s < knobs.sites; ++s) {
    source.site_names.push_back(fmt::format("hospital-{}", s + 1));
    const auto& scanner = scanners.emplace_back(seed, std::uint64_t(s), knobs.site_shift);
    sizes[0].push_back(scanner.size);
    prevalence.emplace_back(scanner.prevalence.begin(),
                            scanner.prevalence.begin() + std::ptrdiff_t(classes));
  }
  auto by_site = apportion({std::size_t(knobs.images)}, sizes);
  fill_empty_parts(by_site, sizes);
  const auto by_class = apportion(by_site[0], prevalence);

  images.pixels.reserve(std::size_t(knobs.images) * images.image_bytes());
  for (std::size_t site = 0; site < scanners.size(); ++site)
    for (std::size_t label = 0; label < classes; ++label)
      for (std::size_t n = 0; n < by_class[site][label]; ++n) {
        RandomStream random(seed, "phantom", {images.size()});
        const auto kind =
            classes > 2 || label == 0 ? Lesion(label) : Lesion(kNodule + random.below(3));
        auto canvas = render(random, kind, scanners[site], options.image_size, knobs.difficulty);
        for (const auto value : canvas.pixels())
          for (int channel = 0; channel < options.channels; ++channel) {
            const double tinted =
                value * (1 + scanners[site].tint * 0.5 * (channel - (options.channels - 1) / 2.0));
            images.pixels.push_back(std::uint8_t(std::clamp(tinted, 0.0, 1.0) * 255 + 0.5));
          }
        images.labels.push_back(std::int32_t(label));
        source.sites.push_back(std::int32_t(site));
        source.splits.push_back(Split::kUnassigned);
      }
  return source;
}

const RegisterReader kPhantom{"phantom", draw_phantoms};

}  // namespace
}  // namespace preceptor::data
