// What follows the sums of a convolution for inference: the activation. See epilogue_cpu.h for what computes it.
#pragma once

namespace fastcv {

enum class Activation { kNone, kRelu, kLeakyRelu, kSilu };

}  // namespace fastcv
