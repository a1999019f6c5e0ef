#pragma once
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>

namespace preceptor::test {

/// Writes what reader "masks" reads: for each of three sites (north, south, west) `images` grey pictures of size × size
/// with one or two bright discs on a dark, uneven ground, every site of another contrast; label maps number the discs.
/// The same files on every call.
inline void write_masked_folder(const std::filesystem::path& root, int images, int size) {
  std::filesystem::create_directories(root / "images");
  std::filesystem::create_directories(root / "labels");
  std::ofstream csv(root / "images.csv");
  csv << "id,site\n";
  cv::RNG random(7);
  const char* sites[] = {"north", "south", "west"};
  for (int i = 0; i < 3 * images; ++i) {
    cv::Mat image(size, size, CV_8U), labels(size, size, CV_8U, cv::Scalar::all(0));
    random.fill(image, cv::RNG::UNIFORM, 20, 70);
    for (int disc = 1; disc <= 1 + i % 2; ++disc) {
      const cv::Point centre(random.uniform(size / 4, 3 * size / 4), random.uniform(size / 4, 3 * size / 4));
      const int radius = random.uniform(size / 8, size / 4);
      cv::circle(labels, centre, radius, cv::Scalar::all(disc), cv::FILLED);
    }
    cv::add(image, cv::Scalar::all(100 + 25 * (i % 3)), image, labels);
    const auto id = "disc-" + std::to_string(i);
    cv::imwrite((root / "images" / (id + ".png")).string(), image);
    cv::imwrite((root / "labels" / (id + ".png")).string(), labels);
    csv << id << "," << sites[i % 3] << "\n";
  }
}

}  // namespace preceptor::test
