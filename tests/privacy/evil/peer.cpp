/// masked_peer coordinator <certificates> <rule> | masked_peer node <certificates> <port> <rule>
/// A coordinator or a node of one masked round over TLS, with the program's own state machines and a model of a
/// few floats. Breaks one rule on the way out, or none ("honest"), and prints what it is told.

#include <iostream>
#include <map>
#include <set>

#include "compression/update/sum_step.h"
#include "coordinator/masked_sum.h"
#include "node/session.h"
#include "privacy/secure_aggregation/certificate_identity.h"
#include "tests/coordinator/made.h"
#include "transport/stream_link.h"

namespace {

using namespace preceptor;
using namespace std::chrono_literals;
using coordinator::test::made_delta;
using coordinator::test::made_ring;
using coordinator::test::made_space;
using transport::Message;
using transport::SecureAggregation;

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  std::cout << fmt::format(format, std::forward<Args>(args)...) << std::endl;
}

const ParameterSpace kSpace = made_space();
const compression::RingCodec kRing = made_ring(kSpace);

/// What the plan of this job says.
privacy::SessionContext terms() {
  privacy::SessionContext context;
  context.job = "evil";
  context.plan = sha256("plan");
  context.k_min = 3;
  context.recomputed = true;
  context.vectors = {{"update", kRing.words(), kRing.options().ring_bits}, {"totals", kRing.totals(), 64}};
  return context;
}

/// The model that round 1 begins with.
const std::vector<float> kStart = made_delta(kSpace, 99);
const compression::SumStep kStep(kRing, 1, 1, kSpace);

/// Publishes a sum that is not the one it moves the model by, or none.
struct PublishingSum : coordinator::MaskedSum {
  using MaskedSum::MaskedSum;
  std::string rule;
  std::optional<Bytes> published() const override {
    auto bytes = MaskedSum::published();
    if (rule == "crafted-model") (*bytes)[0] ^= std::byte{1};
    if (rule == "unpublished-model") return std::nullopt;
    return bytes;
  }
};

node::Patched patched(const node::Patch& patch) {
  auto model = std::make_shared<Bytes>(*patch.base);
  for (std::size_t i = 0; i < patch.deltas.size(); ++i)
    if (auto made = kStep.apply(patch.deltas[i], patch.patches[i].round, {reinterpret_cast<float*>(model->data()), kSpace.size()}); !made)
      return {nullptr, made.error().message};
  if (sha256(*model) != patch.model) return {nullptr, "another hash"};
  return {model, ""};
}

Time now() { return std::chrono::duration_cast<Time>(std::chrono::steady_clock::now().time_since_epoch()); }

/// Changes the inner message of one kind; others pass.
template <class T, class Change>
void change(Message& message, Change how) {
  auto* outer = std::get_if<SecureAggregation>(&message);
  if (!outer) return;
  auto envelope = must(privacy::decode_envelope(outer->envelope));
  auto* inner = std::get_if<T>(&envelope.message);
  if (!inner) return;
  how(*inner);
  outer->envelope = privacy::encode(envelope.session, envelope.message);
}

/// The coordinator's lies, by rule. Returns what is sent in the message's place.
std::vector<Message> lie(const std::string& rule, Message message) {
  using namespace privacy;
  const Message truth = message;
  if (rule == "cohort-floor") change<Invitation>(message, [](auto& m) { m.context.k_min = 2; });
  if (rule == "forged-roster") change<Invitation>(message, [](auto& m) { m.context.roster = sha256("mine"); });
  if (rule == "split-model") change<Invitation>(message, [](auto& m) { m.context.model = sha256("crafted"); });
  if (rule == "low-threshold") change<Invitation>(message, [](auto& m) { --m.context.threshold; });
  if (rule == "key-in-the-middle") change<Roll>(message, [](auto& m) { m.entries.back().advertisement.mask_key = must(AgreementKey::generate(Suite::kX25519ChaCha20)).public_key(); });
  if (rule == "sybil") change<Roll>(message, [](auto& m) { for (auto& e : m.entries) e.advertisement.credential = m.entries[0].advertisement.credential; });
  if (rule == "changed-shares") change<Shares>(message, [](auto& m) { m.entries[0].sealed[0] ^= std::byte{1}; });
  if (rule == "all-dead") change<Survivors>(message, [](auto& m) { std::swap(m.alive, m.dead); });
  if (rule == "both-lists") change<Survivors>(message, [](auto& m) { m.dead.push_back(m.alive.back()); });
  if (rule == "unknown-member") change<Survivors>(message, [](auto& m) { m.alive.push_back(77); });
  if (rule == "few-confirmations") change<Confirmations>(message, [](auto& m) { m.entries.resize(1); });
  if (rule == "two-stories") {
    change<Survivors>(message, [](auto& m) {
      m.alive.push_back(m.dead.empty() ? m.alive.front() : m.dead.front());
    });
    const auto* outer = std::get_if<SecureAggregation>(&truth);
    if (outer && std::holds_alternative<Survivors>(must(decode_envelope(outer->envelope)).message)) return {truth, message};
    return {truth};
  }
  return {std::move(message)};
}

/// Keys and shares of round 2 are for the true model; then each node is told of round 1's, which it has. What it would
/// need to make the true one is withheld until then.
std::vector<Message> swap_model(const std::string& peer, Message message) {
  static transport::RoundStart first;
  static std::map<std::string, std::uint32_t> round;
  static std::set<std::string> told;
  if (const auto* start = std::get_if<transport::RoundStart>(&message)) {
    round[peer] = start->round;
    if (start->round == 1) first = *start;
  }
  if (round[peer] < 2 || told.contains(peer)) return {std::move(message)};
  if (std::holds_alternative<transport::Chunk>(message)) return {};
  const auto* outer = std::get_if<SecureAggregation>(&message);
  if (!outer || !std::holds_alternative<privacy::Shares>(must(privacy::decode_envelope(outer->envelope)).message)) return {std::move(message)};
  told.insert(peer);
  auto other = first;
  other.round = 2;
  return {std::move(message), other};
}

int run_coordinator(const transport::TlsFiles& files, const std::string& rule) {
  const auto roster = must(privacy::CertificateRoster::open({files.certificate, files.key, files.ca, files.crl}));
  PublishingSum sum(kRing, 1, terms(), roster, 4s);
  sum.rule = rule;
  coordinator::RoundOptions options;
  options.rounds = rule.ends_with("-model") && rule != "split-model" ? 2 : 1;
  options.downlink.mode = "sum";
  options.sites = 4;
  options.quorum = 3;
  options.quorum_share = 0;
  options.deadline = 15s;
  options.report_deadline = 3s;
  options.join_deadline = 60s;
  const auto bytes = std::as_bytes(std::span(kStart));
  coordinator::Coordinator machine({"plan", 1, options, kSpace, &sum, nullptr, std::make_shared<Bytes>(bytes.begin(), bytes.end()), nullptr});
  transport::ListenOptions listen;
  listen.endpoint = "127.0.0.1:0";
  listen.tls = files;
  const auto link = must(transport::StreamLink::listen(listen));
  say("(port {})", link->port());
  bool finished = false;
  const auto began = now();
  const std::function<void(const coordinator::Event&)> step = [&](const coordinator::Event& event) {
    for (auto& effect : machine.step(event, now() - began)) {
      if (auto* send = std::get_if<coordinator::Send>(&effect))
        for (const auto& message : rule == "swapped-model" ? swap_model(send->peer, std::move(send->message)) : lie(rule, std::move(send->message)))
          link->send(send->peer, message);
      if (auto* cut = std::get_if<coordinator::Cut>(&effect)) link->disconnect(cut->peer, cut->reason);
      if (auto* done = std::get_if<coordinator::Evaluate>(&effect)) {
        const auto& record = done->record;
        for (const auto& [site, why] : record.missing) say("missing {}: {}", site, why);
        for (const auto& [site, what] : record.lied) say("lied {}: {}", site, what);
        say("round {}: {} of {} updates {}", record.round, record.outcome, record.accepted.size(), record.refused);
        step(coordinator::Evaluated{});
      }
      if (std::holds_alternative<coordinator::Finished>(effect)) finished = true;
    }
  };
  while (!finished) {
    if (auto event = link->poll(10ms)) {
      if (std::holds_alternative<transport::Connected>(event->what)) step(coordinator::Came{event->peer});
      else if (auto* gone = std::get_if<transport::Disconnected>(&event->what)) step(coordinator::Left{event->peer, gone->reason});
      else step(coordinator::Said{event->peer, std::get<Message>(std::move(event->what))});
    }
    if (const auto deadline = machine.next_deadline(); deadline && now() - began >= *deadline) step(coordinator::Tick{});
  }
  return 0;
}

/// A node's lies, by rule.
std::vector<Message> lie_to_coordinator(const std::string& rule, Message message) {
  using namespace privacy;
  const Message truth = message;
  if (rule == "foreign-key") change<Advertisement>(message, [](auto& m) { m.mask_key[0] ^= std::byte{1}; });
  if (rule == "no-signature") change<Advertisement>(message, [](auto& m) { m.signature.clear(); });
  if (rule == "one-key") change<Advertisement>(message, [](auto& m) { m.cipher_key = m.mask_key; });
  if (rule == "missing-share") change<Shares>(message, [](auto& m) { m.entries.pop_back(); });
  if (rule == "repeated-share") change<Shares>(message, [](auto& m) { m.entries[1] = m.entries[0]; });
  if (rule == "wrong-peers-share") change<Shares>(message, [](auto& m) { std::swap(m.entries[0].sealed, m.entries[1].sealed); });
  if (rule == "broken-tag") change<Shares>(message, [](auto& m) { m.entries[0].sealed.back() ^= std::byte{1}; });
  if (rule == "forged-confirmation") change<Confirmation>(message, [](auto& m) { m.signature[5] ^= std::byte{1}; });
  if (rule == "wrong-kind") change<Unmask>(message, [](auto& m) { m.entries[0].kind = ShareKind::kMaskKey; });
  if (rule == "repeated-unmask") change<Unmask>(message, [](auto& m) { m.entries[1].peer = m.entries[0].peer; });
  if (rule == "lying-share") change<Unmask>(message, [](auto& m) { m.entries[0].share.bytes()[0] ^= std::byte{1}; });
  if (auto* offer = std::get_if<transport::UpdateOffer>(&message)) {
    if (rule == "size") ++offer->update_bytes;
    if (rule == "loss-in-the-clear") offer->train_loss = 0.5;
  }
  if (rule == "two-stories") {
    change<Advertisement>(message, [](auto& m) { m.commitment = sha256("another"); });
    if (std::holds_alternative<SecureAggregation>(truth)) return {truth, message};
  }
  return {std::move(message)};
}

int run_node(const transport::TlsFiles& files, const std::string& port, const std::string& rule) {
  const privacy::CertificateFiles paths{files.certificate, files.key, files.ca, files.crl};
  auto signer = std::make_shared<privacy::CertificateSigner>(must(privacy::CertificateSigner::open(paths)));
  auto roster = std::make_shared<privacy::CertificateRoster>(must(privacy::CertificateRoster::open(paths)));
  node::Session session(10, {signer->name(), signer, roster, {}}, {.required = true, .k_min = 3});
  transport::ConnectOptions connect;
  connect.endpoint = "localhost:" + port;
  connect.tls = files;
  connect.reconnect_min = 100ms;
  const auto link = must(transport::StreamLink::connect(connect));
  bool stopped = false;
  const std::function<void(node::Event)> step = [&](node::Event event) {
    for (auto& effect : session.step(std::move(event), now())) {
      if (auto* send = std::get_if<node::Send>(&effect)) {
        if (const auto* refused = std::get_if<transport::Refused>(&send->message)) say("refuses: {}", refused->reason);
        for (const auto& message : lie_to_coordinator(rule, std::move(send->message))) link->send("coordinator", message);
      }
      if (std::holds_alternative<node::ReadPlan>(effect)) step(node::PlanReady{true, "", "", 0, terms(), {{hex(sha256(std::as_bytes(std::span(kStart)))), kStep.bytes(), 2}}});
      if (auto* patch = std::get_if<node::Patch>(&effect)) step(patched(*patch));
      if (auto* train = std::get_if<node::Train>(&effect)) {
        const auto delta = made_delta(kSpace, sha256(signer->name())[0] == std::byte{0} ? 1 : std::to_integer<std::uint64_t>(sha256(signer->name())[0]));
        step(node::Trained{train->round, coordinator::test::secret(kRing, delta, 10, train->round), 0, "", {}, true});
      }
      if (std::holds_alternative<node::Judge>(effect)) step(node::Judged{{}, ""});
      if (auto* settle = std::get_if<node::Settle>(&effect)) say("update {}: {}", settle->accepted ? "counts" : "is lost", settle->why);
      if (auto* stop = std::get_if<node::Stop>(&effect)) {
        say("stops: {}", stop->reason);
        stopped = true;
      }
    }
  };
  while (!stopped) {
    if (auto event = link->poll(10ms)) {
      if (std::holds_alternative<transport::Connected>(event->what)) step(node::Connected{});
      else if (std::holds_alternative<transport::Disconnected>(event->what)) step(node::Disconnected{});
      else step(node::Heard{std::get<Message>(std::move(event->what))});
    }
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  const auto files = [](const std::string& folder) {
    return transport::TlsFiles{folder + "/cert.pem", folder + "/key.pem", folder + "/ca.pem", folder + "/crl.pem"};
  };
  try {
    if (words.size() == 3 && words[0] == "coordinator") return run_coordinator(files(words[1]), words[2]);
    if (words.size() == 4 && words[0] == "node") return run_node(files(words[1]), words[2], words[3]);
  } catch (const std::exception& error) {
    say("failed: {}", error.what());
  }
  return 1;
}
