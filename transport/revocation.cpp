#include <fmt/ranges.h>

#include <map>
#include <set>

#include "transport/authority.h"
#include "transport/certificates.h"

namespace preceptor::transport {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> kReasons = {
    {"unspecified", CRL_REASON_UNSPECIFIED},
    {"keyCompromise", CRL_REASON_KEY_COMPROMISE},
    {"affiliationChanged", CRL_REASON_AFFILIATION_CHANGED},
    {"superseded", CRL_REASON_SUPERSEDED},
    {"cessationOfOperation", CRL_REASON_CESSATION_OF_OPERATION}};

/// An entry's "at" as ASN.1 writes it: "20261123080000Z".
std::string generalized_time(std::string at) {
  std::erase_if(at, [](char c) { return c == '-' || c == ':' || c == 'T'; });
  return at;
}

Result<void> add_revoked(X509_CRL* crl, const IndexEntry& line) {
  Owned<X509_REVOKED, X509_REVOKED_free> entry(X509_REVOKED_new());
  const auto serial = TRY(asn1_integer(line.serial));
  const auto reason = kReasons.find(line.reason);
  const OwnedTime at(ASN1_TIME_new());
  if (reason == kReasons.end() ||
      !ASN1_TIME_set_string_X509(at.get(), generalized_time(line.at).c_str()))
    return fail(Code::kCorrupt, "index.jsonl: the revocation of {} cannot be read", line.serial);
  X509_REVOKED_set_serialNumber(entry.get(), serial.get());
  X509_REVOKED_set_revocationDate(entry.get(), at.get());
  if (reason->second != CRL_REASON_UNSPECIFIED) {
    const Owned<ASN1_ENUMERATED, ASN1_ENUMERATED_free> code(ASN1_ENUMERATED_new());
    ASN1_ENUMERATED_set(code.get(), reason->second);
    X509_REVOKED_add1_ext_i2d(entry.get(), NID_crl_reason, code.get(), 0, 0);
  }
  if (!X509_CRL_add0_revoked(crl, entry.get())) return openssl_error("add to the revocation list");
  (void)entry.release();  // the list owns it now
  return {};
}

/// One more than the list that is there; 1 without one.
OwnedInteger next_list_number(const fs::path& directory) {
  OwnedNumber number(BN_new());
  if (const auto last = read_crl(directory / "crl.pem")) {
    const OwnedInteger old(static_cast<ASN1_INTEGER*>(
        X509_CRL_get_ext_d2i(last->get(), NID_crl_number, nullptr, nullptr)));
    if (old) number.reset(ASN1_INTEGER_to_BN(old.get(), nullptr));
  }
  BN_add_word(number.get(), 1);
  return OwnedInteger(BN_to_ASN1_INTEGER(number.get(), nullptr));
}

/// Issuer, dates and extensions, without entries.
Result<OwnedCrl> blank_list(const fs::path& directory, const Root& root,
                            std::chrono::seconds valid) {
  OwnedCrl crl(X509_CRL_new());
  const auto number = next_list_number(directory);
  const auto now = now_in_seconds();
  X509V3_CTX context;
  X509V3_set_ctx(&context, root.certificate.get(), nullptr, nullptr, crl.get(), 0);
  const OwnedExtension issuer(
      X509V3_EXT_conf_nid(nullptr, &context, NID_authority_key_identifier, "keyid:always"));
  if (!X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) ||
      !X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(root.certificate.get())) ||
      !X509_CRL_set1_lastUpdate(crl.get(), asn1_time(now - kClockSkew).get()) ||
      !X509_CRL_set1_nextUpdate(crl.get(), asn1_time(now + valid).get()) ||
      !X509_CRL_add1_ext_i2d(crl.get(), NID_crl_number, number.get(), 0, 0) || !issuer ||
      !X509_CRL_add_ext(crl.get(), issuer.get(), -1))
    return openssl_error("fill in the revocation list");
  return crl;
}

}  // namespace

Result<void> write_revocation_list(const fs::path& directory, const Root& root,
                                   std::chrono::seconds valid) {
  const auto crl = TRY(blank_list(directory, root, valid));
  const auto index = TRY(read_index(directory));
  std::set<std::string> names;
  for (const auto& entry : index) {
    names.insert(entry.name);
    if (entry.event == IndexEntry::Event::kRevoked) TRY(add_revoked(crl.get(), entry));
  }
  X509_CRL_sort(crl.get());
  if (!X509_CRL_sign(crl.get(), root.key.get(), nullptr))
    return openssl_error("sign the revocation list");
  const auto text = pem_of([&](BIO* to) { PEM_write_bio_X509_CRL(to, crl.get()); });
  TRY(write_file(directory / "crl.pem", text));
  for (const auto& name : names)
    if (fs::exists(directory / name / "cert.pem"))
      TRY(write_file(directory / name / "crl.pem", text));
  return {};
}

Result<void> revoke_certificate(const fs::path& directory, const std::string& name,
                                const std::string& reason) {
  TRY(check_name(name));
  if (!kReasons.contains(reason)) {
    std::vector<std::string> known;
    for (const auto& [word, code] : kReasons) known.push_back(word);
    return fail(Code::kInvalid, "unknown reason '{}'; known: {}", reason, fmt::join(known, ", "));
  }
  const auto lock = TRY(DirectoryLock::take(directory));
  const auto root = TRY(open_root(directory));
  const auto index = TRY(read_index(directory));
  std::set<std::string> serials;
  for (const auto& entry : index) {
    if (entry.name != name) continue;
    if (entry.event == IndexEntry::Event::kIssued) serials.insert(entry.serial);
    if (entry.event == IndexEntry::Event::kRevoked) serials.erase(entry.serial);
  }
  if (serials.empty())
    return fail(Code::kNotFound, "no certificate of '{}' is left to revoke", name);
  for (const auto& serial : serials)
    TRY(append_index(directory, {IndexEntry::Event::kRevoked, serial, name, reason}));
  return write_revocation_list(directory, root, kListLife);
}

Result<void> renew_revocation_list(const fs::path& directory, std::chrono::seconds valid) {
  const auto lock = TRY(DirectoryLock::take(directory));
  const auto root = TRY(open_root(directory));
  return write_revocation_list(directory, root, valid);
}

}  // namespace preceptor::transport
