// Errors that reach Python, thrown from code that may use no std templates.
#pragma once

namespace fastcv {

// ValueError with a printf-style message.
[[noreturn]] void throw_value_error(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace fastcv
