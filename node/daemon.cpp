#include "node/daemon.h"

#include "common/file.h"
#include "common/log.h"
#include "common/worker_pool.h"
#include "privacy/secure_aggregation/certificate_identity.h"

namespace preceptor::node {
namespace {

using namespace std::chrono_literals;

Result<const data::Site*> pick_site(const data::Federation& federation, const std::string& name) {
  if (name.empty() && federation.sites.size() == 1) return &federation.sites.front();
  std::vector<std::string> names;
  for (const auto& site : federation.sites) {
    if (site.name == name) return &site;
    names.push_back(site.name);
  }
  return fail(Code::kInvalid, "site: '{}' is not in the data; it has: {}", name, fmt::join(names, ", "));
}

Result<void> keep(const std::filesystem::path& folder, const Plan& plan, const Verdict& verdict) {
  auto model = TRY(models::FlatModel::create(plan.student));
  const std::map<std::string, std::string> origin{{"job", plan.job}};
  for (const auto& [name, parameters] : {std::pair("local", &verdict.local), {"global", &verdict.global}, {"personalised", &verdict.personalised}}) {
    model.load(*parameters);
    TRY(models::save_model(folder / (std::string(name) + ".safetensors"), model, origin));
  }
  return {};
}

class Daemon {
 public:
  Daemon(Site& site, transport::Link& link) : site_(site), link_(link), pool_(1) {}

  Result<void> run(const std::atomic<bool>& interrupted) {
    std::string status;
    while (!stop_) {
      if (interrupted) return fail(Code::kUnavailable, "interrupted while {}", site_.status());
      if (auto event = link_.poll(20ms)) std::visit([&](auto& what) { hear(what); }, event->what);
      while (auto answer = pool_.wait(0ms)) {
        if (answer->error) return std::unexpected(*answer->error);
        step(std::move(answer->event));
      }
      if (site_.status() != status) spdlog::info("{}: {}", site_.name(), status = site_.status());
    }
    if (!stop_->completed) return fail(Code::kRefused, "{}", stop_->reason);
    return {};
  }

 private:
  struct Answer {
    Event event;
    std::optional<Error> error;
  };

  void hear(transport::Connected&) { step(Connected{}); }
  void hear(transport::Disconnected& gone) {
    spdlog::warn("connection to the coordinator lost: {}; dialling again", gone.reason);
    step(Disconnected{});
  }
  void hear(transport::Message& message) { step(Heard{std::move(message)}); }

  void step(Event event) {
    const auto now = std::chrono::duration_cast<Time>(std::chrono::steady_clock::now() - start_);
    auto todo = site_.step(std::move(event), now);
    for (const auto& message : todo.send) link_.send("coordinator", message);
    if (todo.stop) stop_ = std::move(todo.stop);
    if (!todo.job) return;
    pool_.submit(0, [this, job = std::move(*todo.job)](int) -> Answer {
      if (!bench_) {
        auto bench = Workbench::create(site_.plan());
        if (!bench) return {Disconnected{}, bench.error()};
        bench_ = std::move(*bench);
      }
      return {job(*bench_), std::nullopt};
    });
  }

  Site& site_;
  transport::Link& link_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::unique_ptr<Workbench> bench_;  // touched by the worker only
  std::optional<Stop> stop_;
  WorkerPool<Answer> pool_;
};

}  // namespace

Result<transport::SiteReport> run_daemon(const DaemonOptions& options, const std::atomic<bool>& interrupted) {
  const auto federation = TRY(data::load(options.data, options.seed));
  const auto* chosen = TRY(pick_site(federation, options.site));
  for (const auto& file : federation.report.skipped) spdlog::warn("data: skipped {}", file);
  const auto& name = options.name.empty() ? options.site : options.name;
  if (name.empty()) return fail(Code::kInvalid, "name: say what this hospital is called, as in its certificate; no two may share a name");
  const std::filesystem::path folder(options.state);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Code::kIo, "state: cannot make the folder {}: {}", folder.string(), error.message());

  const auto link = TRY(transport::StreamLink::connect(options.link));
  spdlog::info("{}: {} training images; dialling {}", name, chosen->data.train.size(), options.link.endpoint);
  const auto& tls = options.link.tls;
  const privacy::CertificateFiles files{tls.certificate, tls.key, tls.ca, tls.crl};
  auto signer = std::make_shared<privacy::CertificateSigner>(TRY(privacy::CertificateSigner::open(files)));
  auto roster = std::make_shared<privacy::CertificateRoster>(TRY(privacy::CertificateRoster::open(files)));
  const MaskingPlace masking{signer->name(), signer, roster, folder / "secure_aggregation"};
  Site site(name, chosen->data, options.limits, {folder / "privacy", /*simulated=*/false}, masking);
  TRY(Daemon(site, *link).run(interrupted));
  if (!site.verdict()) return fail(Code::kUnavailable, "the job ended before a verdict was asked for");
  TRY(keep(folder, site.plan(), *site.verdict()));
  return site.verdict()->report;
}

}  // namespace preceptor::node
