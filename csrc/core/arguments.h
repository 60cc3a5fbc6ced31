// What every binding does with its arguments: check them, bring them into a form that kernels read, allocate results.
//
// Errors say which argument, what was expected and what came: "boxes must have shape (K, 5), got (3, 4)".
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "core/tensor.h"

namespace fastcv {

// ---- checks ---------------------------------------------------------------------------------------------------------

// An argument under check: the view and the name the user knows it by.
struct Argument {
  const TensorView& view;
  const char* name;
};

constexpr int64_t kAny = -1;

// "<name> must <expectation>, got <what came>" as a ValueError; the other as a TypeError.
[[noreturn]] void refuse(const std::string& name, const std::string& expectation, const std::string& came);
[[noreturn]] void refuse_type(const std::string& name, const std::string& expectation, const std::string& came);

// `meaning` names the axes, as in "(K, 5)".
void check_shape(Argument argument, std::initializer_list<int64_t> shape, const char* meaning);
void check_dtype(Argument argument, DType expected);
void check_floating(Argument argument);  // float16, bfloat16, float32 or float64
void check_same_shape(Argument argument, Argument other);
void check_same_dtype(Argument argument, Argument other);
void check_same_device(Argument argument, Argument other);
void check_at_least(const char* name, int64_t value, int64_t least);
void check_fewer(const char* name, const char* what, int64_t count, int64_t limit);  // count < limit

std::string describe_sizes(const int64_t* sizes, int count);  // "(3, 4)"
std::string describe_shape(const TensorView& view);
std::string describe_dtype(const TensorView& view);                      // "float32", without torch's prefix
pybind11::tuple sizes_of(const TensorView& view, const int64_t* sizes);  // rank of them

// a * b, for sizes and bytes; throws ValueError where that is too large for an int64.
int64_t multiply_sizes(int64_t a, int64_t b);

// ---- arguments as kernels read them ---------------------------------------------------------------------------------

// Each returns the tensor itself where it fits, else a copy that lives as long as the view.
TensorView contiguous(const TensorView& view);
TensorView converted(const TensorView& view, DType dtype);  // and contiguous
// (N, C, ...), contiguous or with channels innermost (channels_last). Its strides are those that the shape gives for
// that layout, with no arbitrary values for axes of size one.
TensorView dense(const TensorView& view);
// With the strides of `like`, which has its shape.
TensorView with_strides_of(const TensorView& view, const TensorView& like);

// Its elements, in order, lie `step` apart: what is expanded from one number stays one, with step 0.
TensorView evenly_spaced(const TensorView& view, int64_t& step);

// An argument after all its checks, contiguous: of this shape and dtype, on the device of `like`.
TensorView checked(Argument argument, std::initializer_list<int64_t> shape, const char* meaning, DType dtype,
                   Argument like);
// The same for the dtype of `like`.
TensorView checked_like(Argument argument, std::initializer_list<int64_t> shape, const char* meaning, Argument like);

// ---- results --------------------------------------------------------------------------------------------------------

// A tensor that torch has allocated, uninitialised: the object to return, and what a kernel writes to.
struct NewTensor {
  pybind11::object object;
  TensorView view;
};

// On the device of `like`; a description where `like` is one. Throws MemoryError when there is not so much memory (on
// CUDA what torch throws).
NewTensor new_contiguous(const TensorView& like, DType dtype, std::initializer_list<int64_t> shape);
NewTensor new_contiguous(const TensorView& like, DType dtype, const int64_t* shape, int rank);
// Of the shape of `like`, contiguous; the gradient of an argument, say.
NewTensor new_like(const TensorView& like);
// The gradient of an argument as autograd wants it: summed over the axes along which the argument was broadcast, and in
// its dtype. Without elements where none was made because it is not needed.
pybind11::object as_gradient_of(const TensorView& argument, const NewTensor& made);
// (N, C, ...) in the layout of `like`, which has as many axes: channels_last where its channels are next to each other
// and it is not contiguous.
NewTensor new_dense(const TensorView& like, DType dtype, const int64_t* shape);
NewTensor new_dense(const TensorView& like, DType dtype, int64_t n, int64_t c, int64_t h, int64_t w);
// Bytes for a kernel, which owns them for the call.
NewTensor new_workspace(const TensorView& like, int64_t bytes);

// Whether the channels of a dense tensor lie innermost; of tensors where that could be said of either layout, they do.
bool is_channels_last(const TensorView& view);
// Whether new_dense gives a result like it channels_last.
bool gives_channels_last(const TensorView& like);
// Writes the strides of a dense tensor; throws ValueError for sizes whose product is too large for an int64.
void set_dense_strides(const int64_t* shape, int rank, bool channels_last, int64_t* strides);

}  // namespace fastcv
