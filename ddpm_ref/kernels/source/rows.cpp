// Noise and x_t for a range of groups; compiled once for each instruction set (DDPM_ROWS names the result).
#include "rows.h"

#include "lanes.h"

namespace {

#if defined(__AVX512F__)
using One = Lanes;  // exactly one group of 16 blocks
using Many = Pair<Lanes>;
#elif defined(__AVX2__)
using One = Pair<Lanes>;
using Many = Pair<Lanes>;
#else
using One = Scalar;
using Many = Scalar;
#endif

template <class T>
struct Row {
  Address where;
  const T* x0;  // null: noise only
  T* x_t;
  T* eps;
  float signal, noise;
  int64_t origin;  // position that the pointers point to
};

template <class L, class T, bool kAffine>
inline void write(const Row<T>& row, const typename L::Float z[4], int64_t block) {
  using P = typename L::Part;
  DDPM_UNROLL
  for (int word = 0; word < 4; ++word) {
    DDPM_UNROLL
    for (int part = 0; part < L::kParts; ++part) {
      const int64_t n = block + part * P::kLanes;
      const int64_t offset = n / kGroupBlocks * kGroup32 + word * kGroupBlocks + n % kGroupBlocks;
      const int64_t position = offset - row.origin;
      const auto value = P::rounded(L::part(z[word], part), row.eps);
      P::store(row.eps + position, value);
      if (kAffine)
        P::store(row.x_t + position,
                 P::constant(row.signal) * P::load(row.x0 + position) + P::constant(row.noise) * value);
    }
  }
}

template <class L, class T, bool kAffine>
__attribute__((noinline)) void blocks(const Row<T>& row, int64_t first, int64_t end) {
  Philox<L> philox(row.where, uint32_t(first));
  for (int64_t block = first; block < end; block += L::kLanes) {
    typename L::Word words[4];
    typename L::Float z[4];
    philox.next(words, L::kLanes);
    box_muller<L>(words[0], words[1], z[0], z[1]);
    box_muller<L>(words[2], words[3], z[2], z[3]);
    write<L, T, kAffine>(row, z, block);
  }
}

// One group of 16 blocks as words by lane; `next` of one set may take several calls for it.
template <class L>
inline void group_words(Philox<L>& philox, uint32_t words[4][kGroupBlocks]) {
  for (int lane = 0; lane < kGroupBlocks; lane += L::kLanes) {
    typename L::Word next[4];
    philox.next(next, L::kLanes);
    for (int word = 0; word < 4; ++word)
      for (int part = 0; part < L::kParts; ++part)
        L::Part::store(words[word] + lane + part * L::Part::kLanes, L::part(next[word], part));
  }
}

// Groups first to end - 1 of one sample in float64.
template <bool kAffine>
void double_groups(const Row<double>& row, double signal, double noise, int64_t first, int64_t end, int64_t size) {
  Philox<One> philox(row.where, uint32_t(first * kGroupBlocks));
  for (int64_t group = first; group < end; ++group) {
    uint32_t words[4][kGroupBlocks];
    double z[2 * kGroupBlocks];
    group_words(philox, words);
#pragma GCC unroll 1  // a loop that is unrolled first does not become SIMD
    for (int lane = 0; lane < kGroupBlocks; ++lane) {
      const uint32_t block[4] = {words[0][lane], words[1][lane], words[2][lane], words[3][lane]};
      box_muller(block, z[lane], z[lane + kGroupBlocks]);
    }
    const int64_t start = group * kGroup64, left = size - start < kGroup64 ? size - start : kGroup64;
    for (int64_t i = 0; i < left; ++i) {
      row.eps[start + i] = z[i];
      if (kAffine) row.x_t[start + i] = signal * row.x0[start + i] + noise * z[i];
    }
  }
}

// Groups first to end - 1 of one sample; the last may be incomplete and is then computed aside.
template <class T, bool kAffine>
void groups(const Row<T>& row, int64_t first, int64_t end, int64_t size) {
  constexpr int64_t kStep = Many::kLanes / kGroupBlocks > 0 ? Many::kLanes / kGroupBlocks : 1;
  const int64_t whole = size / kGroup32 < end ? size / kGroup32 : end;
  const int64_t many = first + (whole - first) / kStep * kStep;
  if (first < many) blocks<Many, T, kAffine>(row, first * kGroupBlocks, many * kGroupBlocks);
  if (many < whole) blocks<One, T, kAffine>(row, many * kGroupBlocks, whole * kGroupBlocks);
  if (whole == end) return;
  T x0[kGroup32] = {}, x_t[kGroup32], eps[kGroup32];
  const int64_t start = whole * kGroup32, left = size - start;
  if (kAffine) memcpy(x0, row.x0 + start, left * sizeof(T));
  const Row<T> aside = {row.where, x0, x_t, eps, row.signal, row.noise, start};
  blocks<One, T, kAffine>(aside, whole * kGroupBlocks, end * kGroupBlocks);
  memcpy(row.eps + start, eps, left * sizeof(T));
  if (kAffine) memcpy(row.x_t + start, x_t, left * sizeof(T));
}

// x_t of positions first to end - 1 from noise that is there already: the arithmetic of `write`.
template <class T>
void form(const T* x0, const T* eps, T* x_t, float signal, float noise, int64_t first, int64_t end) {
  using P = One::Part;
  const auto scale = P::constant(signal), spread = P::constant(noise);
  int64_t i = first;
  for (; i + P::kLanes <= end; i += P::kLanes) P::store(x_t + i, scale * P::load(x0 + i) + spread * P::load(eps + i));
  for (; i < end; ++i) Scalar::store(x_t + i, signal * Scalar::load(x0 + i) + noise * Scalar::load(eps + i));
}

template <class T>
Row<T> row_of(const DdpmTask& task, int64_t i) {
  const int64_t offset = i * task.size;
  return {address(task.seed, task.first_index + uint64_t(i), task.step, task.use),
          task.x0 ? (const T*)task.x0 + offset : nullptr,
          task.x_t ? (T*)task.x_t + offset : nullptr,
          (T*)task.eps + offset,
          0, 0, 0};
}

template <class T>
void single_range(const DdpmTask& task, int64_t i, int64_t first, int64_t end) {
  Row<T> row = row_of<T>(task, i);
  if (!task.x0) return groups<T, false>(row, first, end, task.size);
  row.signal = ((const float*)task.signal)[i];
  row.noise = ((const float*)task.noise)[i];
  if (task.given) {
    const int64_t stop = end * kGroup32 < task.size ? end * kGroup32 : task.size;
    return form<T>(row.x0, row.eps, row.x_t, row.signal, row.noise, first * kGroup32, stop);
  }
  groups<T, true>(row, first, end, task.size);
}

void double_range(const DdpmTask& task, int64_t i, int64_t first, int64_t end) {
  const Row<double> row = row_of<double>(task, i);
  if (!task.x0) return double_groups<false>(row, 0, 0, first, end, task.size);
  const double signal = ((const double*)task.signal)[i], noise = ((const double*)task.noise)[i];
  if (task.given) {
    const int64_t stop = end * kGroup64 < task.size ? end * kGroup64 : task.size;
    for (int64_t n = first * kGroup64; n < stop; ++n) row.x_t[n] = signal * row.x0[n] + noise * row.eps[n];
    return;
  }
  double_groups<true>(row, signal, noise, first, end, task.size);
}

}  // namespace

// Groups first to end - 1 of sample i.
extern "C" void DDPM_ROWS(const DdpmTask* task, int64_t i, int64_t first, int64_t end) {
  switch (task->type) {
    case kFloat32: return single_range<float>(*task, i, first, end);
    case kFloat64: return double_range(*task, i, first, end);
    case kBfloat16: return single_range<Brain>(*task, i, first, end);
    case kFloat16: return single_range<Half>(*task, i, first, end);
  }
}
