#include "deploy/torchscript.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <sstream>

namespace preceptor::deploy {
namespace {

using models::Argument;
using models::Node;
using torch::jit::Value;

/// The kernels of models/kernels, token by token.
constexpr const char* kKernels = R"(
def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, delta_bias: Tensor, order: Tensor) -> Tensor:
    out = torch.zeros_like(u)
    for k in range(delta.size(0)):
        steps = order[k]
        x = u.index_select(1, steps)
        d = torch.softplus(delta[k].index_select(1, steps) + delta_bias[k])
        dx = d * x
        rows = b[k].index_select(1, steps)
        columns = c[k].index_select(1, steps)
        h = u.new_zeros([u.size(0), u.size(2), a.size(2)])
        ys: List[Tensor] = []
        for t in range(u.size(1)):
            h = torch.exp(d[:, t].unsqueeze(-1) * a[k]) * h + dx[:, t].unsqueeze(-1) * rows[:, t].unsqueeze(1)
            ys.append(torch.matmul(h, columns[:, t].unsqueeze(-1)).squeeze(-1))
        y = torch.stack(ys, 1) + x * skip[k]
        out = out + y.index_select(1, torch.argsort(steps))
    return out

def bi_wkv(decay: Tensor, first: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length = k.size(1)
    w = decay / length
    own = k + first / length
    tops: List[Tensor] = []
    numerators: List[Tensor] = []
    denominators: List[Tensor] = []
    for backward in range(2):
        top = torch.full_like(k[:, 0], -1e30)
        numerator = torch.zeros_like(top)
        denominator = torch.zeros_like(top)
        seen: List[List[Tensor]] = [[], [], []]
        for step in range(length):
            t = length - 1 - step if backward == 1 else step
            seen[0].append(top)
            seen[1].append(numerator)
            seen[2].append(denominator)
            faded = top - w
            top = torch.maximum(faded, k[:, t])
            old = torch.exp(faded - top)
            new = torch.exp(k[:, t] - top)
            numerator = old * numerator + new * v[:, t]
            denominator = old * denominator + new
        for i in range(3):
            if backward == 1:
                seen[i].reverse()
        tops.append(torch.stack(seen[0], 1))
        numerators.append(torch.stack(seen[1], 1))
        denominators.append(torch.stack(seen[2], 1))
    highest = torch.maximum(torch.maximum(tops[0], tops[1]), own)
    mine = torch.exp(own - highest)
    before = torch.exp(tops[0] - highest)
    behind = torch.exp(tops[1] - highest)
    return (before * numerators[0] + behind * numerators[1] + mine * v) / (before * denominators[0] + behind * denominators[1] + mine)
)";

/// Writes the nodes of a traced graph into TorchScript's.
class Writer {
 public:
  explicit Writer(const models::Graph& source) : source_(source), kernels_(torch::jit::compile(kKernels)), values_(source.values.size()) {}

  std::shared_ptr<torch::jit::Graph> write() {
    target_->addInput("self");  // its type is the module's, which the caller knows
    image_ = target_->addInput("images");
    values_[std::size_t(source_.image)] = image_;
    for (const auto& node : source_.nodes) write(node);
    target_->registerOutput(value(source_.logits));
    return target_;
  }

 private:
  Value* value(int id) {
    auto& known = values_[std::size_t(id)];
    if (!known) known = target_->insertConstant(source_.values[std::size_t(id)].tensor);
    return known;
  }

  /// A number that grows with the batch is computed from the images.
  Value* number(std::int64_t n) {
    if (n > models::kTimesBatch) return target_->insertConstant(n);
    if (!batch_) batch_ = target_->insert(c10::aten::size, {image_, target_->insertConstant(0)});
    return target_->insert(c10::aten::mul, {batch_, target_->insertConstant(models::at_batch(n, 1))});
  }

  Value* argument(const Argument& argument) {
    if (argument.is_list) {
      std::vector<Value*> items;
      for (const int id : argument.values) items.push_back(value(id));
      return target_->insertNode(target_->createList(c10::TensorType::get(), items))->output();
    }
    if (!argument.values.empty()) return argument.values[0] < 0 ? target_->insertConstant(c10::IValue()) : value(argument.values[0]);
    const auto& constant = argument.constant;
    if (constant.isInt()) return number(constant.toInt());
    if (!constant.isIntList()) return target_->insertConstant(constant);
    std::vector<Value*> items;
    for (const auto n : constant.toIntVector()) items.push_back(number(n));
    return target_->insertNode(target_->createList(c10::IntType::get(), items))->output();
  }

  void write(const Node& node) {
    std::vector<Value*> inputs;
    for (const auto& a : node.arguments) inputs.push_back(argument(a));
    if (const std::string ours = "preceptor::"; node.op.starts_with(ours)) {
      const auto& kernel = kernels_->get_function(node.op.substr(ours.size()));
      values_[std::size_t(node.outputs[0])] = torch::jit::insertGraph(*target_, *torch::jit::toGraphFunction(kernel).graph(), inputs).at(0);
      return;
    }
    const auto symbol = c10::Symbol::fromQualString("aten::" + node.op);
    auto* made = target_->insertNode(target_->create(symbol, inputs, /*num_outputs=*/0));
    const auto& returns = c10::Dispatcher::singleton().findSchemaOrThrow(("aten::" + node.op).c_str(), node.overload.c_str()).schema().returns();
    for (const auto& output : returns) made->addOutput()->setType(output.type());
    if (returns[0].type()->kind() == c10::TypeKind::ListType)
      made = target_->insertNode(target_->createListUnpack(made->output(), node.outputs.size()));
    for (std::size_t i = 0; i < node.outputs.size(); ++i) values_[std::size_t(node.outputs[i])] = made->outputs()[i];
  }

  const models::Graph& source_;
  std::shared_ptr<torch::jit::CompilationUnit> kernels_;
  std::shared_ptr<torch::jit::Graph> target_ = std::make_shared<torch::jit::Graph>();
  std::vector<Value*> values_;
  Value *image_ = nullptr, *batch_ = nullptr;
};

}  // namespace

Result<std::string> to_torchscript(const models::Graph& graph, const std::map<std::string, std::string>& files) {
  try {
    torch::jit::Module module(c10::QualifiedName("__torch__.Preceptor"));
    const auto written = Writer(graph).write();
    written->inputs()[0]->setType(module.type());
    written->lint();
    auto* forward = module._ivalue()->compilation_unit()->create_function(c10::QualifiedName(*module.type()->name(), "forward"), written);
    module.type()->addMethod(forward);
    module.eval();
    std::ostringstream bytes;
    module.save(bytes, {files.begin(), files.end()});
    return bytes.str();
  } catch (const c10::Error& e) {
    return fail(Code::kInvalid, "TorchScript: {}", e.what_without_backtrace());
  }
}

}  // namespace preceptor::deploy
