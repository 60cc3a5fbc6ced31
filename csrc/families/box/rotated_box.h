// Boxes turned about their centre, and how two of them overlap: the arithmetic that the IoU matrix and suppression share,
// written once so that all devices and instruction sets decide alike (no fused operations; V may be a vector of S).
//
// A box is (cx, cy, w, h, angle): in pixels, and in degrees, counter-clockwise as an image is seen (y down). The point
// (u, v) of the box's own frame lies at
//
//   x = cx + u cos + v sin,   y = cy - u sin + v cos
//
// Both sides may be negative: the box is then turned by 180 degrees. A box with a number that is not finite, or with an
// area below kLeastArea (negative ones are), overlaps nothing: torchvision's rule. Nor does one so long that the square of
// its diagonal is no number (1e154 pixels).
#pragma once

#include <math.h>

#include "core/types.h"

namespace fastcv::FASTCV_VARIANT {

constexpr double kLeastArea = 1e-14;

// A box and what many pairs need of it. `radius` is that of a circle around it, a little too large; NaN for a box that
// overlaps nothing, whose other numbers are zero.
template <class V>
struct RotatedBox {
  V x, y, half_width, half_height, cosine, sine, area, radius;
};
constexpr int kRotatedNumbers = 8;

// Sine and cosine of an angle in degrees, exact at multiples of 90. Written out: C libraries differ in the last bit.
FASTCV_HD void turn_of(double degrees, double* sine, double* cosine) {
  const double turned = fmod(degrees, 360.0);
  const int quarter = static_cast<int>(turned * (1.0 / 90) + (turned < 0 ? -0.5 : 0.5));
  const double x = (turned - 90.0 * quarter) * 0.017453292519943295769;  // in [-pi / 4, pi / 4]
  const double y = x * x;
  double s = 2.8114572543455206e-15, c = 4.7794773323873853e-14;  // 1 / 17!, 1 / 16!
  s = s * y - 7.6471637318198165e-13;
  c = c * y - 1.1470745597729725e-11;
  s = s * y + 1.6059043836821615e-10;
  c = c * y + 2.0876756987868099e-9;
  s = s * y - 2.5052108385441719e-8;
  c = c * y - 2.7557319223985891e-7;
  s = s * y + 2.7557319223985891e-6;
  c = c * y + 2.4801587301587302e-5;
  s = s * y - 1.9841269841269841e-4;
  c = c * y - 1.3888888888888889e-3;
  s = s * y + 8.3333333333333333e-3;
  c = c * y + 4.1666666666666667e-2;
  s = s * y - 1.6666666666666667e-1;
  c = c * y - 0.5;
  s = s * y * x + x;
  c = c * y + 1.0;
  const bool swapped = (quarter & 1) != 0;
  const double a = swapped ? c : s, b = swapped ? s : c;
  *sine = (quarter & 2) != 0 ? -a : a;
  *cosine = ((quarter + 1) & 2) != 0 ? -b : b;
}

// From five numbers that lie `stride` apart.
template <class T>
FASTCV_HD RotatedBox<Accumulate<T>> prepare_rotated_box(const T* row, int64_t stride) {
  using S = Accumulate<T>;
  const S x = to_float(row[0]), y = to_float(row[stride]), angle = to_float(row[4 * stride]);
  const S width = to_float(row[2 * stride]), height = to_float(row[3 * stride]);
  const S area = width * height;
  RotatedBox<S> box{};
  box.radius = static_cast<S>(__builtin_nan(""));
  // Only finite numbers give zero when taken from themselves.
  const bool finite = x - x == S(0) && y - y == S(0) && angle - angle == S(0) && area - area == S(0);
  if (!finite || !(area >= static_cast<S>(kLeastArea))) return box;
  const double half_width = 0.5 * static_cast<double>(width), half_height = 0.5 * static_cast<double>(height);
  const double square = half_width * half_width + half_height * half_height;
  if (!(square - square == 0.0)) return box;
  double sine, cosine;
  turn_of(static_cast<double>(angle), &sine, &cosine);
  box.x = x;
  box.y = y;
  box.half_width = (width < S(0) ? -width : width) * S(0.5);
  box.half_height = (height < S(0) ? -height : height) * S(0.5);
  box.cosine = static_cast<S>(cosine);
  box.sine = static_cast<S>(sine);
  box.area = area;
  box.radius = static_cast<S>(sqrt(square) * (1 + 1e-6));
  return box;
}

// Whether it can overlap anything.
template <class S>
FASTCV_HD bool is_active(const RotatedBox<S>& box) {
  return box.radius == box.radius;
}

template <class V>
FASTCV_HD V magnitude_of(V value) {
  return value < V{} ? -value : value;
}

template <class V>
FASTCV_HD V clamp_between(V value, V low, V high) {
  return least(greatest(value, low), high);
}

// How far the distance of the centres is below that at which the circles around two boxes touch; not positive, or NaN,
// where they cannot overlap.
template <class V>
FASTCV_HD V circles_overlap(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  const V dx = b.x - a.x, dy = b.y - a.y, reach = a.radius + b.radius;
  return reach * reach - (dx * dx + dy * dy);
}

// What rotated_iou is at most, whatever the place and the turn of the boxes. It is the same arithmetic with the largest
// intersection, and rounding keeps order, so this holds to the last bit.
template <class V>
FASTCV_HD V most_iou(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  const V smaller = least(a.area, b.area);
  return smaller / (a.area + b.area - smaller);
}

// The integral of y dx along the line from (x, y) to (x + dx, y + dy), with x and y cut off at the sides of the box
// |x| <= width, |y| <= height. `inverse` is 1 / dx, which may be infinite: the line is upright then and counts nothing.
template <class S, class V>
FASTCV_HD V clipped_integral(V x, V y, V dx, V dy, V inverse, V width, V height) {
  const V zero{}, one = V{} + S(1);
  const V x0 = clamp_between(x, -width, width), x1 = clamp_between(x + dx, -width, width);
  const V t0 = greatest(least((x0 - x) * inverse, one), zero), t1 = greatest(least((x1 - x) * inverse, one), zero);
  const V y0 = y + t0 * dy, y1 = y + t1 * dy;
  const V c0 = clamp_between(y0, -height, height), c1 = clamp_between(y1, -height, height);
  // The mean of a line that is cut off at both ends: that of its ends, moved by what was cut off.
  const V rise = y1 - y0;
  const V moved = ((y0 - c0) + (y1 - c1)) * ((c1 - c0) / rise);
  const V mean = c0 + c1 + (magnitude_of(rise) > zero ? moved : zero);
  return (x1 - x0) * (S(0.5) * mean);
}

// The distance along an axis by which two intervals of half lengths a and b overlap, their centres `distance` apart.
template <class V>
FASTCV_HD V overlap_along(V a, V b, V distance) {
  return a + b - magnitude_of(distance);
}

// How much two boxes overlap along the axes of each; not positive where a side of either separates them. (u, v) is the
// centre of b in the frame of a, (s, c) the turn of b against it; half_x and half_y are half the extents of the one box
// in the frame of the other.
template <class V>
struct SideOverlaps {
  V half_x_in_a, half_y_in_a, half_x_in_b, half_y_in_b;
  V in_a_x, in_a_y, in_b_x, in_b_y;

  FASTCV_HD SideOverlaps(V u, V v, V s, V c, const RotatedBox<V>& a, const RotatedBox<V>& b) {
    const V abs_s = magnitude_of(s), abs_c = magnitude_of(c);
    half_x_in_a = abs_c * b.half_width + abs_s * b.half_height;
    half_y_in_a = abs_s * b.half_width + abs_c * b.half_height;
    half_x_in_b = abs_c * a.half_width + abs_s * a.half_height;
    half_y_in_b = abs_s * a.half_width + abs_c * a.half_height;
    in_a_x = overlap_along(a.half_width, half_x_in_a, u);
    in_a_y = overlap_along(a.half_height, half_y_in_a, v);
    in_b_x = overlap_along(b.half_width, half_x_in_b, u * c - v * s);
    in_b_y = overlap_along(b.half_height, half_y_in_b, u * s + v * c);
  }
  FASTCV_HD V smallest() const { return least(least(in_a_x, in_a_y), least(in_b_x, in_b_y)); }
};

// Intersection over union. In the frame of `a` the intersection is that of an upright box with b: for every x the
// length of b's upright section, cut off at a's sides; so the sum of four integrals along the sides of b. Nothing is
// sorted and nothing branches, and boxes that nearly coincide are as good as others.
template <class S, class V>
FASTCV_HD V rotated_iou(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  const V zero{}, dx = b.x - a.x, dy = b.y - a.y;
  const V u = dx * a.cosine - dy * a.sine, v = dx * a.sine + dy * a.cosine;  // the centre of b
  const V c = b.cosine * a.cosine + b.sine * a.sine, s = b.sine * a.cosine - b.cosine * a.sine;
  const V wx = c * b.half_width, wy = -(s * b.half_width), hx = s * b.half_height, hy = c * b.half_height;
  const V one = V{} + S(1);
  const V side_wx = wx + wx, side_wy = wy + wy, side_hx = hx + hx, side_hy = hy + hy;
  const V inverse_w = one / side_wx, inverse_h = one / side_hx;
  const V width = a.half_width, height = a.half_height;
  const V first = clipped_integral<S>(u - wx - hx, v - wy - hy, side_wx, side_wy, inverse_w, width, height);
  const V second = clipped_integral<S>(u + wx - hx, v + wy - hy, side_hx, side_hy, inverse_h, width, height);
  const V third = clipped_integral<S>(u + wx + hx, v + wy + hy, -side_wx, -side_wy, -inverse_w, width, height);
  const V fourth = clipped_integral<S>(u - wx + hx, v - wy + hy, -side_hx, -side_hy, -inverse_h, width, height);
  const V sum = -((first + third) + (second + fourth));
  const V intersection = least(sum, least(a.area, b.area));
  const V iou = intersection / (a.area + b.area - intersection);
  const V apart = least(circles_overlap(a, b), SideOverlaps<V>(u, v, s, c, a, b).smallest());
  return apart > zero ? (iou > zero ? iou : zero) : zero;
}

// What the intersection is at most, for a fifth of the price: in the frame of either box that box and the upright one
// around the other meet in a rectangle. -2 times the sum of the areas where a side separates them. Rounding apart.
template <class V>
FASTCV_HD V most_intersection(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  const V zero{}, dx = b.x - a.x, dy = b.y - a.y;
  const V u = dx * a.cosine - dy * a.sine, v = dx * a.sine + dy * a.cosine;
  const V c = b.cosine * a.cosine + b.sine * a.sine, s = b.sine * a.cosine - b.cosine * a.sine;
  const SideOverlaps<V> sides(u, v, s, c, a, b);
  const V a_x = least(sides.in_a_x, least(a.half_width, sides.half_x_in_a) * 2);
  const V a_y = least(sides.in_a_y, least(a.half_height, sides.half_y_in_a) * 2);
  const V b_x = least(sides.in_b_x, least(b.half_width, sides.half_x_in_b) * 2);
  const V b_y = least(sides.in_b_y, least(b.half_height, sides.half_y_in_b) * 2);
  const V most = least(least(a_x * a_y, b_x * b_y), least(a.area, b.area));
  return sides.smallest() > zero ? most : (a.area + b.area) * -2;
}

}  // namespace fastcv::FASTCV_VARIANT
