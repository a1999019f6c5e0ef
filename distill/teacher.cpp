#include "distill/teacher.h"

#include <torch/script.h>
#include <torch/torch.h>

namespace preceptor::distill {
namespace {

constexpr std::size_t kMost = 512 << 20;  ///< bytes of logits that are kept

Result<training::Network> load_torchscript(const std::filesystem::path& path, const models::TaskOptions& task, bool segmentation,
                                           const std::string& device) {
  try {
    auto module = std::make_shared<torch::jit::Module>(torch::jit::load(path.string(), torch::Device(device)));
    module->eval();
    const auto run = [module, device](const at::Tensor& images) {
      torch::NoGradGuard no_grad;
      return module->forward({images.to(torch::Device(device))}).toTensor();
    };
    const auto probe = run(torch::zeros({1, task.channels, task.image_size, task.image_size}));
    const auto side = std::int64_t(task.image_size);
    const std::vector<std::int64_t> wanted = segmentation ? std::vector<std::int64_t>{1, task.classes, side, side} : std::vector<std::int64_t>{1, task.classes};
    if (probe.sizes() != wanted)
      return fail(Code::kInvalid, "{}: gives logits {} where {} are wanted", path.string(), c10::str(probe.sizes()), c10::str(at::IntArrayRef(wanted)));
    return run;
  } catch (const std::exception& e) {
    const std::string text = e.what();
    return fail(Code::kCorrupt, "{}: not a usable TorchScript file: {}", path.string(), text.substr(0, text.find('\n')));
  }
}

}  // namespace

Teacher Teacher::wrap(std::shared_ptr<models::FlatModel> model) {
  Teacher teacher;
  teacher.model_ = model;
  teacher.network_ = [model](const at::Tensor& images) {
    torch::NoGradGuard no_grad;
    model->network().eval();
    return model->forward(images);
  };
  return teacher;
}

Result<Teacher> Teacher::load(const std::filesystem::path& path, const models::TaskOptions& task, const std::string& device,
                              bool segmentation) {
  if (path.extension() == ".pt" || path.extension() == ".ts") {
    Teacher teacher;
    teacher.network_ = TRY(load_torchscript(path, task, segmentation, device));
    return teacher;
  }
  auto loaded = TRY(models::load_model(path, device));
  const auto& has = loaded.model.spec().task;
  if (has.classes != task.classes || has.channels != task.channels)
    return fail(Code::kInvalid, "{}: made for {} classes and {} channels, the data have {} and {}", path.string(), has.classes,
                has.channels, task.classes, task.channels);
  const auto& made_for = TRY(models::zoo().find(loaded.model.spec().model.name))->task;
  if (made_for != (segmentation ? "segmentation" : "classification"))
    return fail(Code::kInvalid, "{}: a network for {}, which the data are not for", path.string(), made_for);
  auto teacher = wrap(std::make_shared<models::FlatModel>(std::move(loaded.model)));
  if (!teacher.takes(task))
    return fail(Code::kInvalid, "{}: made for images of {} px, and cannot take those of {} px that the data have", path.string(), has.image_size,
                task.image_size);
  return teacher;
}

bool Teacher::takes(const models::TaskOptions& task) const {
  try {
    network_(torch::zeros({1, task.channels, task.image_size, task.image_size}));
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

at::Tensor LogitCache::rows(const training::Batch& batch) {
  const auto floats = dataset_.size() * dataset_.classes.size() * (dataset_.segmentation ? dataset_.mask_bytes() : 1);
  auto found = views_.find(batch.view);
  if (found == views_.end() && (views_.size() + 1) * floats > kMost / sizeof(float)) return teacher_.logits(batch.images);
  if (found == views_.end())
    found = views_.emplace(batch.view, training::logits_of(teacher_.network(), dataset_, augment_, seed_, batch.view)).first;
  const auto index = torch::from_blob(const_cast<std::size_t*>(batch.index.data()), {std::int64_t(batch.index.size())}, torch::kInt64);
  return found->second.index_select(0, index);
}

}  // namespace preceptor::distill
