// Where in the source a launch or a collective was written, for error messages.
#pragma once

namespace fastcv {

struct CallSite {
  const char* file;
  int line;

  // As a default argument this names the line of the caller.
  static constexpr CallSite here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

}  // namespace fastcv
