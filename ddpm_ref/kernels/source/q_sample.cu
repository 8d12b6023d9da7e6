// Noise and x_t on a CUDA device: the C ABI of rows.h, the arithmetic of philox_normal.h.
#include <cuda_runtime.h>

#include <type_traits>

#include "lanes.h"
#include "rows.h"

namespace {

constexpr int kThreads = 256;

// 16 bytes of one word of neighbouring blocks: what a thread reads and writes at once.
template <class T>
struct alignas(16) Column {
  static constexpr int kSize = 16 / sizeof(T);
  T element[kSize];
};

template <class T>
using Coefficient = typename std::conditional<sizeof(T) == 8, double, float>::type;

DDPM_INLINE int64_t group_size(const float*) { return kGroup32; }
DDPM_INLINE int64_t group_size(const Brain*) { return kGroup32; }
DDPM_INLINE int64_t group_size(const Half*) { return kGroup32; }
DDPM_INLINE int64_t group_size(const double*) { return kGroup64; }

// The numbers of one block, in order: four (32-bit) or two (64-bit).
__device__ __forceinline__ void block_numbers(const uint32_t words[4], float z[4]) {
  box_muller<Scalar>(words[0], words[1], z[0], z[1]);
  box_muller<Scalar>(words[2], words[3], z[2], z[3]);
}
__device__ __forceinline__ void block_numbers(const uint32_t words[4], double z[2]) { box_muller(words, z[0], z[1]); }

__device__ __forceinline__ float rounded(float z, const float*) { return z; }
__device__ __forceinline__ double rounded(double z, const double*) { return z; }
__device__ __forceinline__ float rounded(float z, const Brain* type) { return Scalar::rounded(z, type); }
__device__ __forceinline__ float rounded(float z, const Half* type) { return Scalar::rounded(z, type); }

__device__ __forceinline__ float load(const float* from) { return *from; }
__device__ __forceinline__ double load(const double* from) { return *from; }
__device__ __forceinline__ float load(const Brain* from) { return Scalar::load(from); }
__device__ __forceinline__ float load(const Half* from) { return Scalar::load(from); }

__device__ __forceinline__ void store(float* to, float a) { *to = a; }
__device__ __forceinline__ void store(double* to, double a) { *to = a; }
__device__ __forceinline__ void store(Brain* to, float a) { Scalar::store(to, a); }
__device__ __forceinline__ void store(Half* to, float a) { Scalar::store(to, a); }

// One thread: kSize neighbouring blocks of one group, that is one column of each word. Aligned says that every row starts
// on 16 bytes.
template <class T, bool kAffine, bool kAligned>
__global__ void __launch_bounds__(kThreads) columns(DdpmTask task, int64_t per_row, int64_t total) {
  using C = Coefficient<T>;
  constexpr int kSize = Column<T>::kSize, kWords = sizeof(T) == 8 ? 2 : 4, kPerGroup = kGroupBlocks / kSize;
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= total) return;
  const int64_t row = thread / per_row, column = thread % per_row;
  const int64_t group = column / kPerGroup;
  const int lane = int(column % kPerGroup) * kSize;
  const int64_t start = group * group_size((const T*)nullptr) + lane;  // position of the first word's column

  C z[kSize][kWords];
  Philox<Scalar> philox(address(task.seed, task.first_index + uint64_t(row), task.step, task.use),
                        uint32_t(group * kGroupBlocks + lane));
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    uint32_t words[4];
    philox.next(words, 1);
    block_numbers(words, z[i]);
  }
  const C signal = kAffine ? ((const C*)task.signal)[row] : C(0), noise = kAffine ? ((const C*)task.noise)[row] : C(0);
  const T* x0 = (const T*)task.x0 + row * task.size;
  T* x_t = (T*)task.x_t + row * task.size;
  T* eps = (T*)task.eps + row * task.size;
#pragma unroll
  for (int word = 0; word < kWords; ++word) {
    const int64_t position = start + word * kGroupBlocks;
    if (kAligned && position + kSize <= task.size) {
      Column<T> in, out, drawn;
      if (kAffine) in = *(const Column<T>*)(x0 + position);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const C value = rounded(z[i][word], eps);
        store(&drawn.element[i], value);
        if (kAffine) store(&out.element[i], signal * load(&in.element[i]) + noise * value);
      }
      *(Column<T>*)(eps + position) = drawn;
      if (kAffine) *(Column<T>*)(x_t + position) = out;
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        if (position + i >= task.size) break;
        const C value = rounded(z[i][word], eps);
        store(eps + position + i, value);
        if (kAffine) store(x_t + position + i, signal * load(x0 + position + i) + noise * value);
      }
    }
  }
}

template <class T, bool kAffine>
cudaError_t launch(const DdpmTask& task, cudaStream_t stream) {
  const int64_t group = group_size((const T*)nullptr), per_group = kGroupBlocks / Column<T>::kSize;
  const int64_t per_row = (task.size + group - 1) / group * per_group, total = per_row * task.batch;
  const int64_t grid = (total + kThreads - 1) / kThreads;
  if (grid > 2147483647) return cudaErrorInvalidConfiguration;
  const uintptr_t pointers = (uintptr_t)task.x0 | (uintptr_t)task.x_t | (uintptr_t)task.eps;
  const bool aligned = (pointers | uintptr_t(task.size * sizeof(T))) % 16 == 0;
  if (aligned)
    columns<T, kAffine, true><<<unsigned(grid), kThreads, 0, stream>>>(task, per_row, total);
  else
    columns<T, kAffine, false><<<unsigned(grid), kThreads, 0, stream>>>(task, per_row, total);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_type(const DdpmTask& task, cudaStream_t stream) {
  return task.x0 ? launch<T, true>(task, stream) : launch<T, false>(task, stream);
}

}  // namespace

// Does the task on a stream; null, or the name of the error.
extern "C" const char* ddpm_run_cuda(const DdpmTask* task, void* stream) {
  cudaError_t error = cudaErrorInvalidValue;
  switch (task->type) {
    case kFloat32: error = launch_type<float>(*task, (cudaStream_t)stream); break;
    case kFloat64: error = launch_type<double>(*task, (cudaStream_t)stream); break;
    case kBfloat16: error = launch_type<Brain>(*task, (cudaStream_t)stream); break;
    case kFloat16: error = launch_type<Half>(*task, (cudaStream_t)stream); break;
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
