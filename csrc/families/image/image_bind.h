// Tensors (N, C, H, W) as dense batches of images (families/image/image.h), at the boundary. A result has the layout
// that new_dense gives it: that of one argument, which decides for every tensor that the kernel sees.
#pragma once

#include <string>

#include "core/arguments.h"
#include "families/image/image.h"

namespace fastcv {

// The tensor itself where it is contiguous or channels_last, else a copy in the layout of results like it.
inline TensorView as_images(const TensorView& view) {
  TensorView dense = view;
  set_dense_strides(view.shape, view.rank, gives_channels_last(view), dense.strides);
  return with_strides_of(view, dense);
}

// Sizes (n, c, h, w) as kernels see them, who count rows, and elements of a row, in 32 bits. Where a tensor of one
// pixel or one channel might have either layout, it has that of the argument that decides.
inline ImageShape image_shape(const char* name, const int64_t* shape, bool channels_last) {
  const int64_t n = shape[0], c = shape[1], h = shape[2], w = shape[3];
  const ImageShape made = channels_last ? ImageShape{n, h, w, c} : ImageShape{multiply_sizes(n, c), h, w, 1};
  constexpr int64_t kLimit = int64_t{1} << 31;
  check_fewer(name, "rows", multiply_sizes(made.outer, h), kLimit);
  check_fewer(name, "elements a row", multiply_sizes(w, made.run), kLimit);
  return made;
}

inline std::string describe_pair(int64_t height, int64_t width) {
  const int64_t sizes[] = {height, width};
  return describe_sizes(sizes, 2);
}

}  // namespace fastcv
