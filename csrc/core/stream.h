// The CUDA device and stream a launch goes to, free of any CUDA header.
#pragma once

namespace fastcv {

struct Stream {
  int device;    // CUDA ordinal
  void* handle;  // cudaStream_t; nullptr is the legacy default stream
};

}  // namespace fastcv
