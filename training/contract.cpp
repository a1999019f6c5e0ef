#include "training/contract.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace preceptor::training {
namespace {

constexpr double kMargin = 0.25;  ///< of the range, on either side

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments(std::span<const std::uint8_t> pixels) {
  double sum = 0, squares = 0;
  for (const auto p : pixels) sum += p, squares += double(p) * p;
  const double n = double(std::max<std::size_t>(pixels.size(), 1)), mean = sum / n;
  return {mean, std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

struct Extremes {
  double low = 255, high = 0;
  void add(double value) { low = std::min(low, value), high = std::max(high, value); }
  std::pair<double, double> widened() const {
    const double margin = kMargin * (high - low);
    return {std::clamp(low - margin, 0.0, 255.0), std::clamp(high + margin, 0.0, 255.0)};
  }
};

double negative_log_likelihood(std::span<const float> logits, std::span<const std::int32_t> labels, std::size_t classes, double temperature) {
  double sum = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto row = logits.subspan(i * classes, classes);
    const double top = *std::ranges::max_element(row);
    double total = 0;
    for (const float x : row) total += std::exp((x - top) / temperature);
    sum += std::log(total) - (row[std::size_t(labels[i])] - top) / temperature;
  }
  return sum;
}

}  // namespace

double fit_temperature(std::span<const float> logits, std::span<const std::int32_t> labels, std::size_t classes) {
  // The likelihood has one minimum in ln T, or none inside: golden-section search ends at it or at the border.
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(0.05), high = std::log(20.0);
  const auto at = [&](double x) { return negative_log_likelihood(logits, labels, classes, std::exp(x)); };
  double a = high - ratio * (high - low), b = low + ratio * (high - low), fa = at(a), fb = at(b);
  for (int i = 0; i < 40; ++i) {
    if (fa <= fb)
      high = b, b = a, fb = fa, a = high - ratio * (high - low), fa = at(a);
    else
      low = a, a = b, fa = fb, b = low + ratio * (high - low), fb = at(b);
  }
  return std::exp((low + high) / 2);
}

Contract make_contract(models::FlatModel& model, const data::Splits& data) {
  Contract contract;
  contract.classes = data.train.classes;
  Extremes brightness, contrast;
  for (std::size_t i = 0; i < data.train.size(); ++i) {
    const auto [mean, deviation] = moments(data.train.image(i));
    brightness.add(mean);
    contrast.add(deviation);
  }
  if (data.train.size() > 0) {
    std::tie(contract.brightness_low, contract.brightness_high) = brightness.widened();
    std::tie(contract.contrast_low, contract.contrast_high) = contrast.widened();
  }
  const auto& held_out = data.validation;
  if (!held_out.segmentation && held_out.size() > 0) {
    model.network().eval();
    const auto logits = logits_of([&](const at::Tensor& images) { return model.forward(images); }, held_out, {}, 0, -1).contiguous();
    contract.temperature = fit_temperature({logits.data_ptr<float>(), std::size_t(logits.numel())}, held_out.labels, held_out.classes.size());
  }
  return contract;
}

std::map<std::string, std::string> contract_metadata(Contract contract) { return {{"contract", write_options(contract)}}; }

Result<Contract> read_contract(const models::LoadedModel& loaded, const std::string& file) {
  const auto found = loaded.metadata.find("contract");
  if (found == loaded.metadata.end())
    return fail(Code::kNotFound, "{}: says nothing of the images it was trained for; it was written by an older preceptor", file);
  const auto where = file + " (contract)";
  const auto as_corrupt = [](Error error) { return std::unexpected(Error{Code::kCorrupt, std::move(error.message)}); };
  const auto node = parse_yaml(found->second, where);
  if (!node) return as_corrupt(node.error());
  const auto contract = read_options<Contract>(*node, where);
  if (!contract) return as_corrupt(contract.error());
  if (int(contract->classes.size()) != loaded.model.spec().task.classes)
    return fail(Code::kCorrupt, "{}: names {} classes, and the model has {}", where, contract->classes.size(), loaded.model.spec().task.classes);
  return *contract;
}

std::optional<std::string> unlike(const Contract& contract, std::span<const std::uint8_t> pixels) {
  const auto [mean, deviation] = moments(pixels);
  if (mean < contract.brightness_low || mean > contract.brightness_high)
    return fmt::format("its mean brightness {:.0f} lies outside {:.0f} to {:.0f}, where the model was trained", mean, contract.brightness_low, contract.brightness_high);
  if (deviation < contract.contrast_low || deviation > contract.contrast_high)
    return fmt::format("its contrast {:.0f} (deviation of its pixels) lies outside {:.0f} to {:.0f}, where the model was trained", deviation,
                       contract.contrast_low, contract.contrast_high);
  return {};
}

}  // namespace preceptor::training
