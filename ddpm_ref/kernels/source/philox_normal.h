// The noise of ddpm_ref/noise.py, written once for scalars, SIMD lanes and CUDA threads; equation numbers are that file's.
//
// `L` is a set of lanes (lanes.h): how many neighbouring blocks are computed together and the few operations that C++ has no
// sign for. Floating-point operators round one by one: every file that includes this is compiled without contraction to
// fused multiply-add.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define DDPM_INLINE __host__ __device__ __forceinline__
#define DDPM_UNROLL _Pragma("unroll")
#else
#define DDPM_UNROLL _Pragma("GCC unroll 16")
#define DDPM_INLINE inline __attribute__((always_inline))
#endif

namespace {  // every variant of the build keeps its own copy

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kKeyStep0 = 0x9E3779B9u, kKeyStep1 = 0xBB67AE85u;
constexpr int kGroupBlocks = 16;  // blocks laid out word by word, eq. (2)

// Where in a stream one sample lies: everything about a counter but the block.
struct Address {
  uint32_t key0, key1, index_low, index_high, step, first_block;
};

DDPM_INLINE Address address(uint64_t seed, uint64_t index, uint32_t step, uint32_t use) {
  const uint32_t other = use ? 1u << 31 : 0u;
  return {uint32_t(seed), uint32_t(seed >> 32), uint32_t(index), uint32_t(index >> 32) | other, step, use << 28};
}

// Eq. (1) with the words that are the same for all blocks of a sample pulled out of the first three rounds.
//
// A wide word carries its 32 bits in the low half of a 64-bit lane; the high half is unused, because the multiplier reads
// low halves only. So a round is, twice: one multiplication, one shift, one three-way exclusive or.
template <class L>
struct Philox {
  using Wide = typename L::Wide;
  using Word = typename L::Word;
  uint32_t key0, key1, constant0, constant1, constant2, constant3;
  Wide product;  // M0 * block

  DDPM_INLINE Philox(const Address& a, uint32_t block) : key0(a.key0 + 2 * kKeyStep0), key1(a.key1 + 2 * kKeyStep1) {
    const uint64_t first = uint64_t(kMultiplier1) * a.index_high;
    const uint32_t c0 = uint32_t(first >> 32) ^ a.index_low ^ a.key0;
    const uint64_t second = uint64_t(kMultiplier0) * c0;
    constant0 = a.step ^ a.key1;
    constant1 = uint32_t(first) ^ (a.key0 + kKeyStep0);
    constant2 = uint32_t(second >> 32) ^ (a.key1 + kKeyStep1);
    constant3 = uint32_t(second) ^ key1;
    product = L::multiples(kMultiplier0, a.first_block + block);
  }

  // The next L::kLanes blocks; `stride` blocks from one call to the next.
  DDPM_INLINE void next(Word out[4], uint32_t stride) {
    Wide c3 = product;  // round 1: c0 and c1 are constants
    Wide c2 = L::exclusive_or(L::high(product), constant0);
    product = L::add(product, uint64_t(kMultiplier0) * stride);
    Wide c1 = L::multiply(c2, kMultiplier1);  // round 2: c3 becomes a constant
    Wide c0 = L::exclusive_or(L::high(c1), constant1);
    c2 = L::exclusive_or(c3, constant2);
    c3 = L::multiply(c0, kMultiplier0);  // round 3
    Wide p1 = L::multiply(c2, kMultiplier1);
    c0 = L::exclusive_or(L::high(p1), c1, key0);
    c2 = L::exclusive_or(L::high(c3), constant3);
    c1 = p1;
    uint32_t k0 = key0, k1 = key1;
DDPM_UNROLL
    for (int round = 4; round < 10; ++round) {
      k0 += kKeyStep0, k1 += kKeyStep1;
      const Wide low = L::multiply(c0, kMultiplier0), high = L::multiply(c2, kMultiplier1);
      c0 = L::exclusive_or(L::high(high), c1, k0);
      c2 = L::exclusive_or(L::high(low), c3, k1);
      c1 = high, c3 = low;
    }
    const Wide low = L::multiply(c0, kMultiplier0), high = L::multiply(c2, kMultiplier1);
    out[0] = L::exclusive_or_words(L::narrow_high(high), L::narrow_low(c1), k0 + kKeyStep0);
    out[1] = L::narrow_low(high);
    out[2] = L::exclusive_or_words(L::narrow_high(low), L::narrow_low(c3), k1 + kKeyStep1);
    out[3] = L::narrow_low(low);
  }
};

// Eqs. (3) to (6) for 32-bit words.
template <class L>
DDPM_INLINE void box_muller(typename L::Word a, typename L::Word b, typename L::Float& z0, typename L::Float& z1) {
  using Float = typename L::Float;
  const typename L::Word k = L::leading_zeros(a);
  const Float f = L::to_float(L::shift_left(a, k));  // as a signed number: -tau * 2^32, for the top bit is set
  const Float q = f / (L::constant(0x1p33f) + f);    // -q
  const Float qq = q * q;
  Float series = L::constant(0x1.5fc9c2p-1f) * qq + L::constant(0x1.95362ap-1f);
  series = series * qq + L::constant(0x1.55625ep+0f);
  series = series * qq + L::constant(0x1.fffffap+1f);
  const Float radius = L::square_root(L::to_float(k) * L::constant(0x1.62e430p+0f) - series * q);

  const Float x = L::to_float(b) * L::constant(0x1p-32f);
  const Float y = x * x;
  Float sine = L::constant(0x1.3912a8p-4f) * y + L::constant(-0x1.31fbf4p-1f);
  sine = sine * y + L::constant(0x1.466504p+1f);
  sine = sine * y + L::constant(-0x1.4abba2p+2f);
  sine = (sine * y + L::constant(0x1.921fb4p+1f)) * x;
  Float cosine = L::constant(-0x1.c08004p-3f) * y + L::constant(0x1.46dcc8p+0f);
  cosine = cosine * y + L::constant(-0x1.de9cf0p+1f);
  cosine = (cosine * y + L::constant(0x1.fffffep+1f)) * (L::constant(0.25f) - y);
  z0 = radius * L::flip_sign(cosine, b);
  z1 = radius * sine;
}

template <int kCount>
DDPM_INLINE double polynomial(const double (&coefficients)[kCount], double y) {
  double value = coefficients[kCount - 1];
  DDPM_UNROLL
  for (int i = kCount - 2; i >= 0; --i) value = value * y + coefficients[i];
  return value;
}

DDPM_INLINE double bits_double(uint64_t bits) {
  double number;
  memcpy(&number, &bits, 8);
  return number;
}

// Eq. (7).
DDPM_INLINE double square_root(double w) {
  const double root = sqrtf(float(w));
  const double step = (w - root * root) / (2 * root);
  return root + (step - step * step / (2 * root));
}

// Eqs. (3) to (6) for the two 64-bit halves of one block; without branches, so that a loop over lanes becomes SIMD.
DDPM_INLINE void box_muller(const uint32_t words[4], double& z0, double& z1) {
  const double artanh[] = {0x1.0000000000000p+2, 0x1.5555555555937p+0, 0x1.99999998ebcdbp-1, 0x1.24924978306ebp-1,
                           0x1.c71c4a6af6f4ap-2, 0x1.7462503ce082ep-2, 0x1.3aa9235717700p-2, 0x1.163f9a9490fe4p-2,
                           0x1.959cab6003b38p-3, 0x1.6b517b3e7e853p-2};
  const double sine[] = {0x1.921fb54442d18p+1,  -0x1.4abbce625be38p+2, 0x1.466bc67759f0ap+1,
                         -0x1.32d2cce5e02d0p-1, 0x1.50783467a2fc9p-4,  -0x1.e307400506f50p-8,
                         0x1.e8efa9a932d65p-12, -0x1.6ef2a0c95cd22p-16, 0x1.8d568603e73f5p-21};
  const double cosine[] = {0x1.0000000000000p+2,  -0x1.de9e64df22ee2p+1,  0x1.472be1224244ap+0,  -0x1.d4fcd82fc4d09p-3,
                           0x1.9f05ca34eeef8p-6,  -0x1.f30966a27dc53p-10, 0x1.b23b88c9cf6f7p-14, -0x1.16740b425a1f4p-18};
  // Sums of 32 and 21 bits are exact, so the bits of the sum show k and 1 - tau.
  const double a = double(words[0]) * 0x1p21 + double(words[1] >> 11);
  uint64_t bits;
  memcpy(&bits, &a, 8);
  const double exponent = bits_double((bits >> 52) | 0x4330000000000000ull) - 0x1p52;
  const double mantissa = bits_double((bits & 0x000FFFFFFFFFFFFFull) | 0x3FE0000000000000ull);
  const double k = a == 0 ? 53 : 1075 - exponent;
  const double tau = a == 0 ? 0 : 1 - mantissa;
  const double q = tau / (2 - tau);
  const double series = polynomial(artanh, q * q) * q;
  const double radius = square_root(k * 0x1.62e42fefa39efp+0 + series);
  const double x = (double(int32_t(words[2])) * 0x1p21 + double(words[3] >> 11)) * 0x1p-53;
  const double y = x * x;
  const double cosx = polynomial(cosine, y) * (0.25 - y);
  z0 = radius * (words[3] & 1 ? -cosx : cosx);
  z1 = radius * (polynomial(sine, y) * x);
}

}  // namespace
