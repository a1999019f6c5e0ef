#include <iostream>

#include "app/command.h"
#include "transport/certificates.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string dir = "ca", name, role = "node", reason = "unspecified";
  std::vector<std::string> hosts;
  int days = 30;
};

Result<void> init(const Arguments& a) {
  TRY(transport::init_authority(a.dir, a.name));
  std::cout << "made the root of '" << a.name << "' in " << a.dir << "; keep " << a.dir << "/ca.key offline\n";
  return {};
}

Result<void> issue(const Arguments& a) {
  transport::CertificateRequest request;
  request.name = a.name;
  request.role = a.role == "coordinator" ? transport::CertificateRole::kCoordinator : transport::CertificateRole::kNode;
  request.hosts = a.hosts;
  request.days = a.days;
  const auto files = TRY(transport::issue_certificate(a.dir, request));
  std::cout << files.certificate.parent_path().string() << ": cert.pem, key.pem, ca.pem, crl.pem; hand them over by a safe way\n";
  return {};
}

Result<void> renew(const Arguments& a) {
  TRY(transport::renew_revocation_list(a.dir));
  std::cout << "give the new " << a.dir << "/crl.pem to the coordinator and all nodes\n";
  return {};
}

Result<void> revoke(const Arguments& a) {
  TRY(transport::revoke_certificate(a.dir, a.name, a.reason));
  std::cout << "revoked every certificate of " << a.name << "; give the new " << a.dir << "/crl.pem to the coordinator and all nodes\n";
  return {};
}

std::function<int()> set_up(CLI::App& app, Result<void> (*action)(const Arguments&), const std::function<void(CLI::App&, Arguments&)>& add) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--dir", arguments->dir, "folder of the certificate authority")->capture_default_str();
  add(app, *arguments);
  return [arguments, action] { return finish(action(*arguments)); };
}

const RegisterCommand kInit{"ca init", {"Make a consortium's root certificate", "preceptor ca init --dir ca --name lung-consortium",
  [](CLI::App& app) {
    return set_up(app, init, [](CLI::App& sub, Arguments& a) { sub.add_option("--name", a.name, "the consortium's name")->required(); });
  }}};

const RegisterCommand kIssue{"ca issue", {"Issue a certificate to the coordinator or a node", "preceptor ca issue --dir ca site-1 --role node --days 30",
  [](CLI::App& app) {
    return set_up(app, issue, [](CLI::App& sub, Arguments& a) {
      sub.add_option("name", a.name, "lower-case letters, digits, '-' and '.'; a node's name in every record")->required();
      sub.add_option("--role", a.role)->check(CLI::IsMember({"coordinator", "node"}))->capture_default_str();
      sub.add_option("--host", a.hosts, "name or address that nodes dial (coordinator); may be repeated")->allow_extra_args(false);
      sub.add_option("--days", a.days, "validity")->check(CLI::Range(1, 398))->capture_default_str();
    });
  }}};

const RegisterCommand kRenew{"ca renew", {"Renew the revocation list, which is valid for seven days", "preceptor ca renew --dir ca",
  [](CLI::App& app) { return set_up(app, renew, [](CLI::App&, Arguments&) {}); }}};

const RegisterCommand kRevoke{"ca revoke", {"Revoke the certificates of a name and renew the CRL", "preceptor ca revoke --dir ca site-1 --reason keyCompromise",
  [](CLI::App& app) {
    return set_up(app, revoke, [](CLI::App& sub, Arguments& a) {
      sub.add_option("name", a.name)->required();
      sub.add_option("--reason", a.reason, "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation")->capture_default_str();
    });
  }}};

}  // namespace
}  // namespace preceptor::app
