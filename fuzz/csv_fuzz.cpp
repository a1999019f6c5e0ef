#include "data/csv.h"
#include "fuzz/fuzz.h"

using namespace preceptor::data;

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (const std::string_view text :
       {"file,label\na.png,0\nb.png,1\n",
        "\xef\xbb\xbf\"file\",label\r\n\r\n\"a, \"\"b\"\"\r\nc\",\r\n\"\",x"})
    all.emplace_back(text.begin(), text.end());
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto table = parse_csv({reinterpret_cast<const char*>(data), size});
  if (!table) return 0;
  for (const auto& row : table->rows)
    if (row.fields.size() != table->header.size() || row.line == 0) __builtin_trap();
  return 0;
}
