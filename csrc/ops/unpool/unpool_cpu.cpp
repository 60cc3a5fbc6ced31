// Upsampling without weights on the CPU: row by row, a row of `small` gives or takes scale_y rows of `large`.
//
// Napkin maths, nearest x2 of 8 x 64 x 64 x 64, float32: 8 MB read, 34 MB written; 3 ms at 14 GB/s, of which a fresh
// output's page faults would be more than half without huge pages.
#include "core/interleave_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/unpool/unpool.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

constexpr int64_t kPieceBytes = 128 << 10;

// Rows of `small` per piece of work.
int64_t row_grain(const UnpoolParams& p, int64_t element_bytes) {
  const int64_t bytes = row_length(p.shape) * p.scale_x * p.scale_y * element_bytes;
  return bytes >= kPieceBytes ? 1 : kPieceBytes / (bytes > 0 ? bytes : 1);
}

template <class U>
inline Vector<U> load_bits(const U* source) {
  Vector<U> value;
  __builtin_memcpy(&value, source, sizeof(value));
  return value;
}
template <class U>
inline void store_bits(U* target, Vector<U> value) {
  __builtin_memcpy(target, &value, sizeof(value));
}

// One row of `large`: every pixel of `small` and scale_x - 1 more, copies of it or zeros.
template <class U, bool kNails>
void expand_row(const U* in, U* out, int64_t width, int64_t run, int64_t scale) {
  if (run == 1 && scale == 2) {
    int64_t x = 0;
    for (; x + kLanes<U> <= width; x += kLanes<U>) {
      const Vector<U> value = load_bits(in + x);
      Vector<U> low, high;
      interleave<U>(value, kNails ? Vector<U>{} : value, &low, &high);
      store_bits(out + 2 * x, low);
      store_bits(out + 2 * x + kLanes<U>, high);
    }
    for (; x < width; ++x) {
      out[2 * x] = in[x];
      out[2 * x + 1] = kNails ? U(0) : in[x];
    }
  } else if (run == 1) {
    for (int64_t x = 0; x < width; ++x) {
      out[x * scale] = in[x];
      for (int64_t k = 1; k < scale; ++k) out[x * scale + k] = kNails ? U(0) : in[x];
    }
  } else {
    for (int64_t x = 0; x < width; ++x) {
      U* pixel = out + x * scale * run;
      __builtin_memcpy(pixel, in + x * run, run * sizeof(U));
      for (int64_t k = 1; k < scale; ++k) {
        if constexpr (kNails) {
          __builtin_memset(pixel + k * run, 0, run * sizeof(U));
        } else {
          __builtin_memcpy(pixel + k * run, in + x * run, run * sizeof(U));
        }
      }
    }
  }
}

template <class U, bool kNails>
void expand(const UnpoolParams& p) {
  const int64_t in_length = row_length(p.shape), out_length = in_length * p.scale_x;
  if (element_count(p.shape) == 0) return;  // the pointers may be null
  advise_huge_pages(p.large, element_count(p.shape) * p.scale_x * p.scale_y * sizeof(U));
  parallel_for(row_count(p.shape), row_grain(p, sizeof(U)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const U* in = static_cast<const U*>(p.small) + row * in_length;
      U* out = static_cast<U*>(p.large) + row * p.scale_y * out_length;
      expand_row<U, kNails>(in, out, p.shape.width, p.shape.run, p.scale_x);
      for (int64_t k = 1; k < p.scale_y; ++k) {
        if constexpr (kNails) {
          __builtin_memset(out + k * out_length, 0, out_length * sizeof(U));
        } else {
          __builtin_memcpy(out + k * out_length, out, out_length * sizeof(U));
        }
      }
    }
  });
}

// ---- transposes ----

template <class U>
void pick_nails(const UnpoolParams& p) {
  if (element_count(p.shape) == 0) return;  // the pointers may be null
  const int64_t length = row_length(p.shape), run = p.shape.run, step = p.scale_x * run;
  parallel_for(row_count(p.shape), row_grain(p, sizeof(U)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const U* in = static_cast<const U*>(p.large) + row * p.scale_y * length * p.scale_x;
      U* out = static_cast<U*>(p.small) + row * length;
      if (run == 1) {
        for (int64_t x = 0; x < p.shape.width; ++x) out[x] = in[x * step];
      } else {
        for (int64_t x = 0; x < p.shape.width; ++x) __builtin_memcpy(out + x * run, in + x * step, run * sizeof(U));
      }
    }
  });
}

template <class T>
inline Vector<Accumulate<T>> sum_column(const T* in, int64_t stride, int64_t count) {
  Vector<Accumulate<T>> sum = load(in);
  for (int64_t k = 1; k < count; ++k) sum += load(in + k * stride);
  return sum;
}

template <class T>
inline Accumulate<T> sum_rectangle(const T* in, int64_t stride, int64_t rows, int64_t step, int64_t columns) {
  Accumulate<T> sum(0);
  for (int64_t j = 0; j < columns; ++j) {
    Accumulate<T> column = to_float(in[j * step]);
    for (int64_t k = 1; k < rows; ++k) column += to_float(in[k * stride + j * step]);
    sum = j == 0 ? column : sum + column;
  }
  return sum;
}

// `stride` is the length of a row of `large`.
template <class T>
void sum_row(const T* in, int64_t stride, T* out, const UnpoolParams& p) {
  using A = Accumulate<T>;
  constexpr int64_t kStep = kLanes<A>;
  const int64_t width = p.shape.width, run = p.shape.run;
  if (run == 1) {
    int64_t x = 0;
    for (; p.scale_x == 2 && x + kStep <= width; x += kStep) {
      Vector<A> even, odd;
      deinterleave<A>(sum_column(in + 2 * x, stride, p.scale_y), sum_column(in + 2 * x + kStep, stride, p.scale_y),
                      &even, &odd);
      store(out + x, even + odd);
    }
    for (; x < width; ++x) {
      out[x] = from_float<T>(sum_rectangle(in + x * p.scale_x, stride, p.scale_y, 1, p.scale_x));
    }
    return;
  }
  for (int64_t x = 0; x < width; ++x) {
    const T* pixel = in + x * p.scale_x * run;
    int64_t r = 0;
    for (; r + kStep <= run; r += kStep) {
      Vector<A> sum = sum_column(pixel + r, stride, p.scale_y);
      for (int64_t j = 1; j < p.scale_x; ++j) sum += sum_column(pixel + j * run + r, stride, p.scale_y);
      store(out + x * run + r, sum);
    }
    for (; r < run; ++r) {
      out[x * run + r] = from_float<T>(sum_rectangle(pixel + r, stride, p.scale_y, run, p.scale_x));
    }
  }
}

template <class T>
void sum_rectangles(const UnpoolParams& p) {
  const int64_t length = row_length(p.shape), stride = length * p.scale_x;
  parallel_for(row_count(p.shape), row_grain(p, sizeof(T)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* in = static_cast<const T*>(p.large) + row * p.scale_y * stride;
      sum_row(in, stride, static_cast<T*>(p.small) + row * length, p);
    }
  });
}

}  // namespace

void unpool_forward_cpu(const UnpoolParams& params) {
  dispatch_moved(params.dtype, [&](auto tag) {
    using U = typename decltype(tag)::type;
    params.nails ? expand<U, true>(params) : expand<U, false>(params);
  });
}

void unpool_backward_cpu(const UnpoolParams& params) {
  if (params.nails) {
    dispatch_moved(params.dtype, [&](auto tag) { pick_nails<typename decltype(tag)::type>(params); });
  } else {
    dispatch_floating(params.dtype, [&](auto tag) { sum_rectangles<typename decltype(tag)::type>(params); });
  }
}

}  // namespace fastcv::FASTCV_VARIANT
