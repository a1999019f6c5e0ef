#pragma once
#include <complex>
#include <vector>

namespace preceptor::privacy {

/// Fast Fourier transforms of one length, a power of two; every twiddle factor is from sin and cos
/// themselves. By hand because convolving a loss distribution with itself thousands of times wants
/// all 53 bits: OpenCV's dft has its factors from a recurrence (1e-11 at 2^19 points), FFTW's
/// licence would bind the program, and Debian 12 has no other.
class Fft {
 public:
  explicit Fft(std::size_t length);  ///< a power of two, at least 2
  /// Σ values[j] e^(-2πi jk/length), in place.
  void forward(std::vector<std::complex<double>>& values) const;
  /// Its inverse.
  void inverse(std::vector<std::complex<double>>& values) const;

 private:
  void run(std::vector<std::complex<double>>& values) const;
  std::vector<std::complex<double>> twiddles_;  ///< e^(-2πi k/length), k below length/2
};

}  // namespace preceptor::privacy
