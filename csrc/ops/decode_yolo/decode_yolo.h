// The heads of YOLO, decoded: from a map to the candidates whose score is high enough, without the table of all scores.
//
//   output   of any strides and floating dtype; half types are computed in float32
//            versions 2 and 3   (N, A (5 + K), H, W): per anchor x, y, w, h, confidence, K classes
//            version 1          (N, S S (K + 5 B)): classes of all cells, confidences of all boxes, their x, y, w, h
//   boxes    (N, M, 4)  x1, y1, x2, y2 in pixels; 0 behind the last candidate
//   scores   (N, M)     confidence times class; minus infinity behind the last
//   labels   (N, M)     int64, from 0; -1 behind the last
//   count    (N,)       int64: how many candidates
//
//   versions 2 and 3   centre = (cell + scale s(xy) - (scale - 1) / 2) step,   size = exp(wh) anchor,   s(confidence),
//                      s(class) or the softmax of the classes, where s is the logistic function
//   version 1          centre = (cell + xy) step,   size = wh^2 or max(wh, 0), times the image,   no functions but
//                      perhaps the softmax of the classes
//
// Candidates are pairs of a box and a class whose score is at least the threshold, in the order row, column, anchor,
// class. Where there are more than M, the M best; of equal scores the first. A NaN is no candidate.
//
// Redmon et al. 2016, "You Only Look Once", section 2; Redmon, Farhadi 2016, "YOLO9000", section 2; 2018, "YOLOv3",
// section 2.1.
#pragma once

#include "core/cpu_variants.h"
#include "core/types.h"
#include "families/box/box_coding.h"

namespace fastcv {

// Where numbers of a box lie from the image's first one, in elements: those of row 0, column 0, anchor 0, element 0 at
// `first`.
struct YoloField {
  int64_t first, row, column, anchor, element;
};

struct DecodeYoloParams {
  static constexpr int kMostAnchors = 32;
  const void* output;
  void* boxes;  // and scores: float64 for float64, else float32
  void* scores;
  int64_t* labels;
  int64_t* count;
  DType dtype;
  int64_t images, image_stride;
  int64_t height, width, anchors, classes, capacity;
  YoloField confidence, box, kind;  // kind: the classes
  double sizes[2 * kMostAnchors];   // per anchor width and height
  double step_x, step_y, scale, threshold;
  bool logistic;  // versions 2 and 3
  bool softmax;   // of the classes
  bool square;    // version 1: sizes are square roots
};

FASTCV_DECLARE_KERNEL(decode_yolo, DecodeYoloParams);

namespace FASTCV_VARIANT {

template <class A>
FASTCV_HD A logistic(A x) {
  return A(1) / (A(1) + exponential(-x));
}

// A number below which the logistic function is surely below `least`; it saves its evaluation.
FASTCV_HD double logistic_bound(double least) {
  if (!(least > 0)) return -1e300;
  const double exact = least < 1 ? ::log(least / (1 - least)) : 15.0;
  return (exact < 15.0 ? exact : 15.0) - 0.01;  // float32 rounds to 1 from 17 on
}

// One box of one image.
template <class T>
struct YoloBox {
  using A = Accumulate<T>;
  const T* confidence;
  const T* box;
  const T* kind;
  int64_t row, column, anchor;

  FASTCV_HD YoloBox(const DecodeYoloParams& p, const T* image, int64_t index)
      : row(index / p.anchors / p.width), column(index / p.anchors % p.width), anchor(index % p.anchors) {
    confidence = at(image, p.confidence);
    box = at(image, p.box);
    kind = at(image, p.kind);
  }

  FASTCV_HD const T* at(const T* image, const YoloField& field) const {
    return image + field.first + row * field.row + column * field.column + anchor * field.anchor;
  }

  // Calls body(label, score) for each class whose score is at least the threshold, by ascending label.
  template <class Body>
  FASTCV_HD void for_each_score(const DecodeYoloParams& p, A bound, const Body& body) const {
    A sure = to_float(*confidence);
    const A threshold = static_cast<A>(p.threshold);
    if (p.logistic) {
      if (sure < bound) return;
      sure = logistic(sure);
      if (!(sure >= threshold)) return;
    }
    const int64_t step = p.kind.element;
    if (p.softmax) {
      A most = to_float(kind[0]), sum = A(0);
      for (int64_t k = 1; k < p.classes; ++k) most = greatest(static_cast<A>(to_float(kind[k * step])), most);
      for (int64_t k = 0; k < p.classes; ++k) sum += exponential(to_float(kind[k * step]) - most);
      for (int64_t k = 0; k < p.classes; ++k) {
        const A score = sure * (exponential(to_float(kind[k * step]) - most) / sum);
        if (score >= threshold) body(k, score + A(0));
      }
      return;
    }
    const A class_bound = p.logistic ? static_cast<A>(logistic_bound(p.threshold / sure)) : A(0);
    for (int64_t k = 0; k < p.classes; ++k) {
      A score = to_float(kind[k * step]);
      if (p.logistic) {
        if (score < class_bound) continue;
        score = logistic(score);
      }
      score *= sure;
      if (score >= threshold) body(k, score + A(0));  // and no negative zero
    }
  }

  // Writes the candidate to place `i` of all.
  FASTCV_HD void write(const DecodeYoloParams& p, int64_t i, int64_t label, A score) const {
    const int64_t step = p.box.element;
    A x = to_float(box[0]), y = to_float(box[step]), w = to_float(box[2 * step]), h = to_float(box[3 * step]);
    if (p.logistic) {
      const A scale = static_cast<A>(p.scale), shift = (scale - A(1)) / A(2);
      x = logistic(x) * scale - shift;
      y = logistic(y) * scale - shift;
      w = exponential(w);
      h = exponential(h);
    } else {
      w = p.square ? w * w : greatest(w, A(0));
      h = p.square ? h * h : greatest(h, A(0));
    }
    x = (x + static_cast<A>(column)) * static_cast<A>(p.step_x);
    y = (y + static_cast<A>(row)) * static_cast<A>(p.step_y);
    const A half_width = w * static_cast<A>(p.sizes[2 * anchor]) / A(2);
    const A half_height = h * static_cast<A>(p.sizes[2 * anchor + 1]) / A(2);
    A* const corners = static_cast<A*>(p.boxes) + 4 * i;
    corners[0] = x - half_width;
    corners[1] = y - half_height;
    corners[2] = x + half_width;
    corners[3] = y + half_height;
    static_cast<A*>(p.scores)[i] = score;
    p.labels[i] = label;
  }
};

template <class A>
FASTCV_HD void write_no_candidate(const DecodeYoloParams& p, int64_t i) {
  A* const corners = static_cast<A*>(p.boxes) + 4 * i;
  for (int k = 0; k < 4; ++k) corners[k] = A(0);
  static_cast<A*>(p.scores)[i] = -static_cast<A>(__builtin_inf());
  p.labels[i] = -1;
}

// The bits of a score, which is not negative, ascend with it.
FASTCV_HD uint32_t score_key(float score) {
  return bit_cast<uint32_t>(score);
}
FASTCV_HD uint64_t score_key(double score) {
  return bit_cast<uint64_t>(score);
}

// Which candidates stay: all whose key is above `key`, and the first `ties` of those that have it. Found byte by byte,
// from the highest: `known` bytes of the key are found, `ties` are still to be taken among those that share them.
template <class Key>
struct YoloCut {
  Key key = 0;
  int64_t ties = 0;
  int known = 0;

  FASTCV_HD bool shares(Key other) const { return known == 0 || (key ^ other) >> (8 * (sizeof(Key) - known)) == 0; }
  FASTCV_HD int next_byte(Key other) const { return static_cast<int>(other >> (8 * (sizeof(Key) - known - 1)) & 255); }

  // `counts` are those of each next byte, of the candidates that share what is known; all of them are at least `ties`.
  FASTCV_HD void find_byte(const uint32_t* counts) {
    int byte = 255;
    while (byte > 0 && counts[byte] < ties) ties -= counts[byte--];
    key |= static_cast<Key>(byte) << (8 * (sizeof(Key) - known - 1));
    ++known;
  }
};

}  // namespace FASTCV_VARIANT
}  // namespace fastcv
