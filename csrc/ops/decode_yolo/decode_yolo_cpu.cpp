// Decoding of YOLO's heads on the CPU: a thread takes an image.
//
// Napkin maths, YOLOv3-tiny at 416: 2535 boxes, of which all but a few end at one comparison of their confidence, 5 us;
// a box that is left costs 80 cache lines where channels come first, 1 us. The table of scores would be 203 000
// logistic functions.
#include <math.h>

#include "core/parallel.h"
#include "ops/decode_yolo/decode_yolo.h"

namespace fastcv::FASTCV_VARIANT {
namespace {

template <class T>
struct Image {
  using A = Accumulate<T>;
  using Key = decltype(score_key(A{}));
  const DecodeYoloParams& p;
  const T* data;
  int64_t first;  // place of its first candidate
  A bound;

  Image(const DecodeYoloParams& p, int64_t index)
      : p(p),
        data(static_cast<const T*>(p.output) + index * p.image_stride),
        first(index * p.capacity),
        bound(static_cast<A>(logistic_bound(p.threshold))) {}

  // Calls body(box, label, score) for all candidates in order.
  template <class Body>
  void for_each(const Body& body) const {
    const int64_t boxes = p.height * p.width * p.anchors;
    for (int64_t i = 0; i < boxes; ++i) {
      const YoloBox<T> box(p, data, i);
      box.for_each_score(p, bound, [&](int64_t label, A score) { body(box, label, score); });
    }
  }

  int64_t decode() const {
    if (p.capacity == 0) return 0;
    int64_t found = 0;
    for_each([&](const YoloBox<T>& box, int64_t label, A score) {
      if (found++ < p.capacity) box.write(p, first + found - 1, label, score);
    });
    if (found > p.capacity) {
      decode_best();
      return p.capacity;
    }
    for (int64_t i = found; i < p.capacity; ++i) write_no_candidate<A>(p, first + i);
    return found;
  }

  void decode_best() const {
    YoloCut<Key> cut;
    cut.ties = p.capacity;
    while (cut.known < static_cast<int>(sizeof(Key))) {
      uint32_t counts[256] = {};
      for_each([&](const YoloBox<T>&, int64_t, A score) {
        if (cut.shares(score_key(score))) ++counts[cut.next_byte(score_key(score))];
      });
      cut.find_byte(counts);
    }
    int64_t found = 0;
    for_each([&](const YoloBox<T>& box, int64_t label, A score) {
      const Key key = score_key(score);
      if (key > cut.key || (key == cut.key && cut.ties-- > 0)) box.write(p, first + found++, label, score);
    });
  }
};

}  // namespace

void decode_yolo_cpu(const DecodeYoloParams& params) {
  dispatch_floating(params.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    parallel_for(params.images, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) params.count[i] = Image<T>(params, i).decode();
    });
  });
}

}  // namespace fastcv::FASTCV_VARIANT
