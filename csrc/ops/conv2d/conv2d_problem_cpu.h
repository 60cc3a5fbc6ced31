// A convolution as the CPU kernels see it: channels innermost. Everything is in the type of the sums, or E are pairs of
// bfloat16 (bf16_pair_cpu.h) of neighbouring channels, T is bfloat16 and sums are float. CPU translation units only.
#pragma once

#include "core/epilogue_cpu.h"
#include "core/gemm_cpu.h"
#include "core/layout_cpu.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/conv2d/conv2d.h"

namespace fastcv::FASTCV_VARIANT {

template <class E, class T = E>
struct Conv2dProblem {
  using S = Accumulate<E>;
  Conv2dAxis axes[2];
  int64_t batch, groups, channels, columns;  // channels (or pairs of them) and columns of one group
  const E* source;                           // [n][y][x][group][channel]
  const E* packed;
  const S* bias;
  const T* residual;  // like target, or of another size
  int64_t residual_size[2];
  T* target;  // [n][y][x][group][column]
  Epilogue<S> epilogue;
};

// Whether what is added is a smaller map, each pixel of which serves several.
template <class E, class T>
bool is_enlarged(const Conv2dProblem<E, T>& p) {
  return p.residual != nullptr && (p.residual_size[0] != p.axes[0].output || p.residual_size[1] != p.axes[1].output);
}

// The pixel of a smaller map that serves pixel i, as torch's nearest upsampling has it.
inline int64_t nearest(int64_t i, int64_t size, int64_t of) {
  const auto place = static_cast<int64_t>(static_cast<float>(i) * (static_cast<float>(of) / static_cast<float>(size)));
  return least(place, of - 1);
}

// Calls body(VectorCount<...>{}) with the vectors of the panel that starts at column `first`.
template <class S, class Body>
FASTCV_INLINE void dispatch_panel(int64_t first, int64_t columns, const Body& body) {
  switch (panel_width<S>(first, columns) / kLanes<S>) {
    case 1:
      return body(VectorCount<1>{});
    case 2:
      return body(VectorCount<2>{});
#if FASTCV_VECTOR_REGISTERS == 32
    case 3:
      return body(VectorCount<3>{});
    default:
      return body(VectorCount<4>{});
#endif
  }
}

// A map with channels innermost, of S: the tensor itself where it is that already, else scratch.
template <class T, class S>
class ChannelsInnermost {
  static constexpr int64_t kPiece = 256;

 public:
  ChannelsInnermost(void* data, int64_t batch, int64_t channels, int64_t pixels, bool channels_last)
      : map_(static_cast<T*>(data)),
        batch_(batch),
        channels_(channels),
        pixels_(pixels),
        channels_last_(channels_last),
        is_copy_(data != nullptr && (!channels_last || sizeof(T) != sizeof(S))),
        memory_(is_copy_ ? bytes_of<S>(batch, channels, pixels) : 0) {}

  S* data() const { return is_copy_ ? memory_.template as<S>() : static_cast<S*>(static_cast<void*>(map_)); }

  void read() const {
    each_piece([this](T* map, S* pixels, int64_t count) {
      if (channels_last_) {
        convert_run(map, count * channels_, pixels);
      } else {
        transpose(map, pixels_, pixels, channels_, channels_, count);
      }
    });
  }
  void write() const {
    each_piece([this](T* map, S* pixels, int64_t count) {
      if (channels_last_) {
        convert_run(pixels, count * channels_, map);
      } else {
        transpose(pixels, channels_, map, pixels_, count, channels_);
      }
    });
  }

 private:
  template <class Body>
  void each_piece(const Body& body) const {
    if (!is_copy_) return;
    const int64_t pieces = ceil_div(pixels_, kPiece);
    parallel_for(batch_ * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, first = i % pieces * kPiece;
        T* image = map_ + n * channels_ * pixels_;
        body(image + (channels_last_ ? first * channels_ : first), data() + (n * pixels_ + first) * channels_,
             least(pixels_ - first, kPiece));
      }
    });
  }

  T* map_;
  int64_t batch_, channels_, pixels_;
  bool channels_last_, is_copy_;
  Scratch memory_;
};

}  // namespace fastcv::FASTCV_VARIANT
