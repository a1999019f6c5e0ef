#include "app/report.h"

#include "app/report_page.h"
#include "common/file.h"

namespace preceptor::app {

Result<void> write_report(const std::filesystem::path& directory) {
  const auto run = TRY(read_run(directory));
  return write_file(directory / "report.html", page_html(run));
}

}  // namespace preceptor::app
