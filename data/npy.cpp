#include "data/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace preceptor::data {
namespace {

constexpr std::size_t kMaxRank = 8;

// The header is a Python dictionary literal: strings, True/False, and a tuple of whole numbers.
class Literal {
 public:
  explicit Literal(std::string_view text) : text_(text) {}

  bool take(char c) {
    skip_blanks();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool done() {
    skip_blanks();
    return text_.empty();
  }

  Result<void> expect(char c) {
    if (take(c)) return {};
    return fail(Code::kCorrupt, "npy header: '{}' expected", c);
  }
  Result<std::string> string() {
    const char quote = take('\'') ? '\'' : take('"') ? '"' : '\0';
    const auto end = quote ? text_.find(quote) : std::string_view::npos;
    if (end == std::string_view::npos) return fail(Code::kCorrupt, "npy header: a string expected");
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value;
  }
  Result<bool> boolean() {
    skip_blanks();
    for (const auto& [word, value] : {std::pair{std::string_view("True"), true}, {"False", false}})
      if (text_.starts_with(word)) return text_.remove_prefix(word.size()), value;
    return fail(Code::kCorrupt, "npy header: True or False expected");
  }
  Result<std::uint64_t> number() {
    skip_blanks();
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    if (error != std::errc()) return fail(Code::kCorrupt, "npy header: a whole number expected");
    text_.remove_prefix(std::size_t(end - text_.data()));
    return value;
  }
  Result<std::vector<std::uint64_t>> tuple() {
    std::vector<std::uint64_t> values;
    if (auto open = expect('('); !open) return std::unexpected(open.error());
    while (!take(')')) {
      if (values.size() == kMaxRank)
        return fail(Code::kCorrupt, "npy header: over {} dimensions", kMaxRank);
      values.push_back(TRY(number()));
      if (!take(',') && !text_.starts_with(')'))
        return fail(Code::kCorrupt, "npy header: ',' or ')' expected in the shape");
    }
    return values;
  }

 private:
  void skip_blanks() {
    text_.remove_prefix(std::min(text_.find_first_not_of(" \n"), text_.size()));
  }

  std::string_view text_;
};

Result<void> read_descr(const std::string& descr, NpyHeader& header) {
  const bool form = descr.size() == 3 && (descr[1] == 'u' || descr[1] == 'i');
  const int bytes = form ? descr[2] - '0' : 0;
  const bool size = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
  if (!size || !(descr[0] == '<' || (descr[0] == '|' && bytes == 1)))
    return fail(Code::kInvalid,
                "holds numbers of type '{}'; little-endian integers are read, "
                "so save it with .astype('uint8') or .astype('<i8')",
                descr.substr(0, 16));
  header.kind = descr[1];
  header.item_bytes = std::size_t(bytes);
  return {};
}

}  // namespace

Result<std::size_t> npy_header_bytes(std::span<const std::byte> preamble) {
  ByteReader reader(preamble);
  const auto magic = TRY(reader.take(6));
  if (std::memcmp(magic.data(), "\x93NUMPY", 6) != 0)
    return fail(Code::kCorrupt, "not an npy array (it does not begin with \\x93NUMPY)");
  const auto major = TRY(reader.get<std::uint8_t>());
  TRY(reader.get<std::uint8_t>());
  if (major < 1 || major > 3)
    return fail(Code::kCorrupt, "npy version {}; 1 to 3 are known", major);
  const std::size_t text =
      major == 1 ? TRY(reader.get<std::uint16_t>()) : TRY(reader.get<std::uint32_t>());
  if (text > kMaxNpyHeader)
    return fail(Code::kCorrupt, "npy header of {} bytes; at most {} are read", text, kMaxNpyHeader);
  return preamble.size() - reader.left() + text;
}

Result<NpyHeader> parse_npy_header(std::span<const std::byte> bytes) {
  NpyHeader header;
  header.header_bytes = TRY(npy_header_bytes(bytes.first(std::min(bytes.size(), kNpyPreamble))));
  if (bytes.size() < header.header_bytes) return fail(Code::kCorrupt, "truncated npy header");
  const std::size_t preamble = bytes[6] == std::byte{1} ? 10 : 12;
  const auto text = bytes.subspan(preamble, header.header_bytes - preamble);
  Literal literal({reinterpret_cast<const char*>(text.data()), text.size()});

  std::optional<std::string> descr;
  std::optional<bool> fortran;
  std::optional<std::vector<std::uint64_t>> shape;
  if (auto open = literal.expect('{'); !open) return std::unexpected(open.error());
  while (!literal.take('}')) {
    const auto key = TRY(literal.string());
    if (auto colon = literal.expect(':'); !colon) return std::unexpected(colon.error());
    if (key == "descr" && !descr)
      descr = TRY(literal.string());
    else if (key == "fortran_order" && !fortran)
      fortran = TRY(literal.boolean());
    else if (key == "shape" && !shape)
      shape = TRY(literal.tuple());
    else
      return fail(Code::kCorrupt, "npy header: unknown or repeated key");
    literal.take(',');
  }
  if (!literal.done()) return fail(Code::kCorrupt, "npy header: text after its end");
  if (!descr || !fortran || !shape)
    return fail(Code::kCorrupt, "npy header: wants descr, fortran_order, shape");
  if (auto read = read_descr(*descr, header); !read) return std::unexpected(read.error());
  if (*fortran)
    return fail(Code::kInvalid, "in Fortran order; save it with numpy.ascontiguousarray");
  header.shape = *std::move(shape);
  header.array_bytes = header.item_bytes;
  bool overflow = false;
  std::uint64_t extents = header.item_bytes;  // without the zeros, which would hide an overflow
  for (const auto extent : header.shape) {
    if (extent > 0) overflow |= __builtin_mul_overflow(extents, extent, &extents);
    header.array_bytes *= extent;
  }
  if (overflow) return fail(Code::kCorrupt, "npy header: the size of its shape overflows");
  return header;
}

Result<std::int64_t> npy_integer(const NpyHeader& header, std::span<const std::byte> item) {
  std::uint64_t value = 0;
  std::memcpy(&value, item.data(), header.item_bytes);
  if (header.kind == 'i') {
    const int unused = int(64 - 8 * header.item_bytes);
    return std::int64_t(value << unused) >> unused;
  }
  if (value > std::uint64_t(INT64_MAX)) return fail(Code::kCorrupt, "a number over 2^63");
  return std::int64_t(value);
}

}  // namespace preceptor::data
