#pragma once
#include <string>

#include "app/report_run.h"

namespace preceptor::app {

/// The whole report of a run: headline, verdicts, models, curves, bytes, rounds, data, provenance.
/// One HTML text without scripts or anything to fetch, and with a policy in it that forbids both;
/// of long lists it shows the telling part, so that it stays under 2 MiB.
std::string page_html(const Run& run);

}  // namespace preceptor::app
