#include "distill/assistants.h"

namespace preceptor::distill {
namespace {

std::string place(std::size_t i) { return fmt::format("assistants[{}]", i); }

Result<void> check_one(const AssistantOptions& assistant, const data::Dataset& dataset) {
  const auto spec = TRY(training::spec_for(assistant.model, dataset));
  TRY(models::build(spec));
  return check(assistant.distillation, int(dataset.classes.size()));
}

Result<Teacher> train_one(const AssistantOptions& assistant, Teacher teacher, const data::Dataset& dataset, RandomStream random,
                          const training::EpochCallback& after_epoch) {
  const auto spec = TRY(training::spec_for(assistant.model, dataset));
  auto model = std::make_shared<models::FlatModel>(TRY(models::FlatModel::create(spec, assistant.training.device)));
  const auto seed = random.bits64();
  model->initialise(random);
  TRY(derive(*model, std::move(teacher), dataset, assistant.training, assistant.distillation, seed, after_epoch));
  return Teacher::wrap(std::move(model));
}

}  // namespace

Result<void> check(std::span<const AssistantOptions> assistants, const data::Dataset& dataset) {
  for (std::size_t i = 0; i < assistants.size(); ++i)
    if (const auto checked = check_one(assistants[i], dataset); !checked) return in(place(i), checked.error());
  return {};
}

Result<Teacher> through_assistants(Teacher teacher, std::span<const AssistantOptions> assistants, const data::Dataset& dataset,
                                   std::uint64_t seed, const AssistantCallback& after_epoch) {
  for (std::size_t i = 0; i < assistants.size(); ++i) {
    const auto report = [&](int epoch, double loss) {
      if (after_epoch) after_epoch(i, epoch, loss);
      return true;
    };
    auto trained = train_one(assistants[i], std::move(teacher), dataset, RandomStream(seed, "assistant", {i}), report);
    if (!trained) return in(place(i), trained.error());
    teacher = std::move(*trained);
  }
  return teacher;
}

}  // namespace preceptor::distill
