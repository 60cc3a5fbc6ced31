// Position-sensitive pooling (Dai et al. 2016, "R-FCN", section 2): every bin of a region of interest reads channels of
// its own.
//
//   features  (N, C * P * Q, H, W)  any strides
//   boxes     (K, 5)                batch index, x1, y1, x2, y2 in pixels of the image; contiguous, float32 (float64
//                                   when the features are float64)
//   pooled    (K, C, P, Q)          contiguous or channels_last
//
// Channel c of the result at bin (p, q) is pooled from channel (c * P + p) * Q + q of the features. What pooling is, an
// op says with a type Bins<A> per device: see position_sensitive_cpu.h and cuda/position_sensitive.cuh. It is linear in
// the features. A box with a coordinate that is not finite gives zeros and has no gradient. A batch index outside [0,
// N) is a ValueError on the CPU; on CUDA that RoI gives zeros.
#pragma once

#include "families/roi/roi_params.h"
