// The work order that Python hands over (the ctypes structure in native.py and cuda.py has the same fields in this order).
#pragma once
#include <stdint.h>

enum DdpmType : int32_t { kFloat32 = 0, kFloat64 = 1, kBfloat16 = 2, kFloat16 = 3 };

// eps[i] = noise of sample first_index + i; x_t[i] = signal[i] * x0[i] + noise[i] * eps[i] where x0 is given.
// With `given`, eps is read instead of drawn.
// x0, x_t and eps are dense [batch, size] of one type; signal and noise are [batch], float64 for float64 and else float32.
struct DdpmTask {
  const void* x0;
  const void* signal;
  const void* noise;
  void* x_t;
  void* eps;
  int64_t batch, size;
  uint64_t seed, first_index;
  uint32_t step, use;
  int32_t type, threads;
  int32_t given;
};

constexpr int64_t kGroup32 = 64;  // numbers a group of 16 blocks, eq. (2) of noise.py
constexpr int64_t kGroup64 = 32;
