// Names for what differs between compilers, and nothing else.
#pragma once

#include <cstdint>

// Code that kernels share lives in fastcv::FASTCV_VARIANT, one namespace per way of compiling it: "baseline", "avx2"
// and "avx512" for the CPU translation units, "cuda" for nvcc, "emulated" for the test build of the .cu files and
// "host" for the bindings. An inline function compiled for AVX-512 can then never be picked by the linker for the rest.
#ifndef FASTCV_VARIANT
#if defined(__CUDACC__)
#define FASTCV_VARIANT cuda
#elif defined(FASTCV_EMULATED)
#define FASTCV_VARIANT emulated
#else
#define FASTCV_VARIANT host
#endif
#endif

// Part of its caller, whatever the compiler thinks of that.
#define FASTCV_INLINE inline __attribute__((always_inline))

// The same, for code of both devices.
#if defined(__CUDACC__)
#define FASTCV_HD __host__ __device__ __forceinline__
#else
#define FASTCV_HD FASTCV_INLINE
#endif
