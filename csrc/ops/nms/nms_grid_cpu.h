// Where to look for boxes that could suppress a given one: a grid of box centres per octave of box size. CPU
// translation units only.
//
// IoU(a, b) > t implies, for the widths (and likewise the heights) of the two and the distance d of their centres,
//
//   width of the intersection > t * max(width_a, width_b)     as union >= area of either, intersection height <= height
//   width of the intersection <= (width_a + width_b) / 2 - d
//   =>  d < (width_a + width_b) / 2 - t * max(width_a, width_b)   and   width_b in (t * width_a, width_a / t)
//
// so a box looks through a few cells of the few octaves whose boxes are of its size. At t = 0.5 that is a window of its
// own size around its centre, and three octaves. Cells hold about kOccupancy boxes, so the cost per box follows the
// density of boxes like it, not their number. Cells of a row lie next to each other: a row of the window is one run.
//
// Rotated boxes come as the upright boxes around them. Nothing bounds how unlike those are, so octaves are of the area
// of the box itself: IoU(a, b) > t implies area_b in (t * area_a, area_a / t). As for the distance: the share of b that
// lies in `a` is above t, and lies beyond the line x = d - width_a / 2 seen from b's centre. The sections of b along a
// line are longest in its middle and shrink ever faster (it is convex and symmetric), so of b there is beyond a line at
// s >= 0 at most (1 - s / (width_b / 2)) / 2. With g = 1 - 2 t, or 0 where that is negative,
//
//   d < (width_a + g * width_b) / 2   and likewise   d < (width_b + g * width_a) / 2
#pragma once

#include "core/types.h"
#include "families/box/box.h"

namespace fastcv::FASTCV_VARIANT {

// Room for rounding: in the IoU (a few times 2^-24), and in the arithmetic here.
constexpr double kGridSlack = 1e-5;

// The sides of a rotated box: where they cut rows. All lengths are halved, as centres are.
struct RotatedSides {
  double half_width, half_height;  // halved again
  double slope_w, slope_h, inverse_w, inverse_h;

  RotatedSides(double width, double height, double cosine, double sine) : half_width(width), half_height(height) {
    // A side that lies along x cuts no row short: a slope of 0 and a huge length instead of what is infinite.
    const double c = cosine < 0 ? -cosine : cosine, s = sine < 0 ? -sine : sine;
    inverse_w = c > 1e-4 ? 1 / c : 1e30;
    inverse_h = s > 1e-4 ? 1 / s : 1e30;
    slope_w = c > 1e-4 ? sine / cosine : 0;
    slope_h = s > 1e-4 ? -cosine / sine : 0;
  }

  // The x, from the box's centre, of points with y in [top, bottom] that are not further than `beyond` outside a side.
  void narrow(double top, double bottom, double beyond, double& low, double& high) const {
    const double w = (half_width + beyond) * inverse_w, h = (half_height + beyond) * inverse_h;
    const double w0 = top * slope_w, w1 = bottom * slope_w, h0 = top * slope_h, h1 = bottom * slope_h;
    low = greatest(low, greatest(least(w0, w1) - w, least(h0, h1) - h));
    high = least(high, least(greatest(w0, w1) + w, greatest(h0, h1) + h));
  }
};
struct NoSides {};

template <class A, bool kRotated = false>
class NmsGrid {
 public:
  static constexpr int kLevels = 256;
  static constexpr double kOccupancy = 4;

  // First pass: all boxes that will take part.
  void measure(const Box<A>& box, A area) {
    const double width = box.x2 - box.x1, height = box.y2 - box.y1;
    Level& level = levels_[level_of(width, height, area)];
    if (level.count++ == 0) {
      level.least_width = level.most_width = width;
      level.least_height = level.most_height = height;
      level.least_area = level.most_area = area;
    }
    if constexpr (kRotated) widen(area, level.least_area, level.most_area);
    widen(width, level.least_width, level.most_width);
    widen(height, level.least_height, level.most_height);
    const double x = centre(box.x1, box.x2), y = centre(box.y1, box.y2);
    if (total_++ == 0) {
      left_ = right_ = x;
      top_ = bottom_ = y;
    }
    widen(x, left_, right_);
    widen(y, top_, bottom_);
    if (area < smallest_area()) tiny_ = true;
  }

  // How the plane is cut into cells, all levels together; at most one per kOccupancy boxes and one per level.
  int64_t lay_out(double threshold) {
    // Where areas are so small that their rounding is coarse, nothing but the intersection itself counts.
    threshold_ = tiny_ ? 0.0 : threshold * (1 - kGridSlack);
    share_ = threshold_ < 0.5 ? 1 - 2 * threshold_ : 0.0;
    int64_t cells = 0;
    for (int i = 0; i < kLevels; ++i) {
      if (levels_[i].count == 0) continue;
      Level& level = levels_[i];
      // A third of a typical side along y, a sixth along x, where steps cost less: runs go along x.
      double columns = (right_ - left_) / (level.most_width * (1.0 / 12)) + 1;
      double rows = (bottom_ - top_) / (level.most_height * (1.0 / 6)) + 1;
      const double limit = level.count / kOccupancy + 1;
      if (!(columns < 1e9)) columns = 1e9;
      if (!(rows < 1e9)) rows = 1e9;
      if (columns * rows > limit) {
        const double shrink = __builtin_sqrt(limit / (columns * rows));
        columns = greatest(columns * shrink, 1);
        rows = greatest(rows * shrink, 1);
        if (columns > limit) columns = limit;
        if (rows > limit) rows = limit;
      }
      level.columns = static_cast<int64_t>(columns);
      level.rows = static_cast<int64_t>(rows);
      level.per_x = cells_per_length(level.columns, right_ - left_);
      level.per_y = cells_per_length(level.rows, bottom_ - top_);
      level.height = level.per_y > 0 ? 1 / level.per_y : 0;
      level.first_cell = cells;
      cells += level.columns * level.rows;
      used_[used_count_++] = static_cast<int16_t>(i);
    }
    return cells;
  }

  int64_t cell_of(const Box<A>& box, A area) const {
    const Level& level = levels_[level_of(box.x2 - box.x1, box.y2 - box.y1, area)];
    const int64_t row = clamp((centre(box.y1, box.y2) - top_) * level.per_y, level.rows);
    return level.first_cell + row * level.columns +
           clamp((centre(box.x1, box.x2) - left_) * level.per_x, level.columns);
  }

  // Calls body(first cell, last cell) for each run that could hold a box that suppresses this one, until it is true.
  // `sides` are those of a rotated box: a row need not reach beyond them.
  template <class Sides, class Body>
  bool any_run(const Box<A>& box, A area, const Sides& sides, const Body& body) const {
    const double width = box.x2 - box.x1, height = box.y2 - box.y1;
    const double x = centre(box.x1, box.x2) - left_, y = centre(box.y1, box.y2) - top_;
    const double error_x = 1e-15 * (magnitude(box.x1) + magnitude(box.x2));
    const double error_y = 1e-15 * (magnitude(box.y1) + magnitude(box.y2));
    for (int i = 0; i < used_count_; ++i) {
      const Level& level = levels_[used_[i]];
      if (kRotated ? level.most_area < threshold_ * area || level.least_area * threshold_ > area
                   : level.most_width < threshold_ * width || level.least_width * threshold_ > width ||
                         level.most_height < threshold_ * height || level.least_height * threshold_ > height) {
        continue;
      }
      // centres are kept halved
      const double reach_x = 0.5 * reach(width, level.least_width, level.most_width) + error_x;
      const double reach_y = 0.5 * reach(height, level.least_height, level.most_height) + error_y;
      int64_t column0 = clamp((x - reach_x) * level.per_x, level.columns);
      int64_t column1 = clamp((x + reach_x) * level.per_x, level.columns);
      const int64_t row0 = clamp((y - reach_y) * level.per_y, level.rows);
      const int64_t row1 = clamp((y + reach_y) * level.per_y, level.rows);
      // how far beyond a side the centre can be: see the first bound of nms_rotated_cpu.h, with the radius at most this
      const double beyond = (share_ + kGridSlack) * 0.25 * (level.most_width + level.most_height) + error_x + error_y;
      for (int64_t row = row0; row <= row1; ++row) {
        if constexpr (kRotated) {
          // rounding can put a centre into the next row
          const double top = static_cast<double>(row) * level.height - y - 1e-9 * level.height;
          double low = -reach_x, high = reach_x;
          if (level.height > 0) sides.narrow(top, top + (1 + 2e-9) * level.height, beyond, low, high);
          column0 = clamp((x + low) * level.per_x, level.columns);
          column1 = clamp((x + high) * level.per_x, level.columns);
          if (low > high) continue;
        }
        const int64_t cell = level.first_cell + row * level.columns;
        if (body(cell + column0, cell + column1)) return true;
      }
    }
    return false;
  }

 private:
  struct Level {
    double least_width, most_width, least_height, most_height;
    double least_area, most_area;  // of rotated boxes
    double per_x, per_y;
    double height;  // of a cell; 0 where there is but one row
    int64_t columns, rows, first_cell;
    int64_t count = 0;
  };

  // The binary exponent of the longer side, or of the area of a rotated box, in the range of float32.
  static int level_of(double width, double height, double area) {
    const uint64_t bits = bit_cast<uint64_t>(kRotated ? area : greatest(width, height));
    const int exponent = static_cast<int>(bits >> 52) - (1023 - kLevels / 2);  // all of them are positive
    return exponent < 0 ? 0 : exponent >= kLevels ? kLevels - 1 : exponent;
  }

  // Half of the centre's coordinate: no sum of two finite numbers overflows then.
  static double centre(A low, A high) { return 0.25 * static_cast<double>(low) + 0.25 * static_cast<double>(high); }

  static double magnitude(double value) { return value < 0 ? -value : value; }

  static double smallest_area() { return sizeof(A) == 4 ? 1e-30 : 1e-290; }

  static void widen(double value, double& least, double& most) {
    if (value < least) least = value;
    if (value > most) most = value;
  }

  static double cells_per_length(int64_t cells, double length) {
    return cells > 1 && length > 1e-300 ? static_cast<double>(cells) / length : 0.0;
  }

  static int64_t clamp(double position, int64_t cells) {
    if (!(position > 0)) return 0;
    return position < static_cast<double>(cells - 1) ? static_cast<int64_t>(position) : cells - 1;
  }

  // How far the centre of a box with a side in [least, most] can be away.
  double reach(double side, double least, double most) const {
    if constexpr (kRotated) {
      return 0.5 * FASTCV_VARIANT::least(most + share_ * side, side + share_ * most) +
             kGridSlack * greatest(side, most);
    }
    double other = side;
    if (threshold_ < 0.5) other = threshold_ > 0 && side / threshold_ < most ? side / threshold_ : most;
    other = other < least ? least : other > most ? most : other;
    const double longer = greatest(side, other);
    return 0.5 * (side + other) - threshold_ * longer + kGridSlack * longer;
  }

  Level levels_[kLevels];
  int16_t used_[kLevels];
  int used_count_ = 0;
  int64_t total_ = 0;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  double threshold_ = 0;
  double share_ = 1;
  bool tiny_ = false;
};

}  // namespace fastcv::FASTCV_VARIANT
