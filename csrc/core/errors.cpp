#include "core/errors.h"

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

namespace fastcv {

void throw_value_error(const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  throw std::invalid_argument(message);  // pybind11 makes it a ValueError
}

}  // namespace fastcv
