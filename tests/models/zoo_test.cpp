#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/flat_model.h"

namespace preceptor::models {
namespace {

struct Published {
  ModelSpec spec;
  std::size_t parameters;
  std::int64_t macs;  ///< 0: not asserted
};

ModelSpec spec(const char* name, double width, const char* stem, int classes, int channels, int size) {
  return {{name, width, stem}, {classes, channels, size}};
}

// Counts from the reference implementations (torchvision 0.14, MedMNIST's experiments repository).
class Counts : public testing::TestWithParam<Published> {};

TEST_P(Counts, AreThePublishedOnes) {
  const auto& p = GetParam();
  auto model = FlatModel::create(p.spec);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->space().trainable(), p.parameters);
  if (p.macs) {
    EXPECT_EQ(count_macs(model->network(), p.spec.task), p.macs);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Zoo, Counts,
    testing::Values(Published{spec("resnet18", 1, "small", 9, 3, 28), 11173449, 456703488},
                    Published{spec("resnet18", 1, "standard", 9, 3, 224), 11181129, 0},
                    Published{spec("resnet18", 1, "standard", 1000, 3, 224), 11689512, 1814073344},
                    Published{spec("mobilenet_v2", 1, "standard", 1000, 3, 224), 3504872, 300774272},
                    Published{spec("mobilenet_v2", 0.5, "standard", 1000, 3, 224), 1968680, 97131840},
                    Published{spec("mobilenet_v2", 1, "standard", 9, 3, 64), 2235401, 24460032},
                    Published{spec("mobilenet_v2", 0.5, "standard", 9, 3, 128), 699209, 31310080},
                    Published{spec("mobilenet_v2", 1, "half", 9, 3, 64), 2235401, 97805568},
                    Published{spec("mobilenet_v2", 0.5, "half", 9, 3, 64), 699209, 31310080},
                    Published{spec("mobilenet_v2", 1, "small", 9, 3, 28), 2235401, 73388928},
                    Published{spec("mobilenet_v2", 0.5, "small", 9, 3, 28), 699209, 23336224},
                    Published{spec("mobilenet_v2", 0.35, "small", 9, 3, 28), 407657, 13066336},
                    Published{spec("mobilenet_v2", 0.35, "half", 9, 3, 64), 407657, 18952192},
                    Published{spec("shufflenet_v2", 0.5, "standard", 1000, 3, 224), 1366792, 40476448},
                    Published{spec("shufflenet_v2", 0.5, "standard", 9, 3, 224), 351017, 39461664},
                    Published{spec("shufflenet_v2", 1, "standard", 1000, 3, 224), 2278604, 144907992},
                    Published{spec("shufflenet_v2", 0.5, "small", 9, 3, 28), 351017, 9378192},
                    Published{spec("shufflenet_v2", 1, "small", 9, 3, 28), 1262829, 37891748}));

}  // namespace
}  // namespace preceptor::models
