#pragma once
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <expected>
#include <string>
#include <utility>

namespace preceptor {

/// What kind of failure a caller can act on. The message says the rest.
enum class Code {
  kInvalid,      ///< a user's option or call is wrong
  kNotFound,     ///< a file, key, peer or name does not exist
  kCorrupt,      ///< bytes from outside break their format
  kRefused,      ///< a rule said no (certificate, admission, policy)
  kUnavailable,  ///< try again later (connection, quorum)
  kIo,           ///< the operating system said no
};

/// A failure caused by a peer, a file or a user: "what, where, what to do" in one line.
struct Error {
  Code code;
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;

/// fail(Code::kCorrupt, "{}: short header", path), to be returned as any Result<T>.
template <class... Args>
std::unexpected<Error> fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

/// The same error with "where: " in front, for the layer that knows the file or the peer.
inline std::unexpected<Error> in(const std::string& where, Error error) {
  return std::unexpected(Error{error.code, where + ": " + error.message});
}

}  // namespace preceptor

/// Value of a Result, or return its error from the enclosing function.
#define TRY(...)                                                              \
  ({                                                                          \
    auto try_result_ = (__VA_ARGS__);                                         \
    if (!try_result_) return std::unexpected(std::move(try_result_).error()); \
    *std::move(try_result_);                                                  \
  })
