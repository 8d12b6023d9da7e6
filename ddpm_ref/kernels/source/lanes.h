// Lanes: the operations of philox_normal.h on one element (any compiler, CUDA), on 8 (AVX2) and on 16 (AVX-512).
//
// Word is 32 bits a lane, Float the same as numbers. Wide is 32 bits in the low half of 64 a lane (the high half may hold
// anything); with SIMD it is a pair of registers, even lanes and odd lanes.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#include "philox_normal.h"
#include "rounding.h"

namespace {

struct Scalar {
  static constexpr int kLanes = 1, kParts = 1;
  using Part = Scalar;
  using Word = uint32_t;
  using Float = float;
  using Wide = uint64_t;
  static DDPM_INLINE Float part(Float x, int) { return x; }
  static DDPM_INLINE Word part(Word x, int) { return x; }
  static DDPM_INLINE void store(uint32_t* to, Word a) { *to = a; }
  static DDPM_INLINE Wide multiples(uint32_t factor, uint32_t first) { return uint64_t(factor) * first; }
  static DDPM_INLINE Wide add(Wide a, uint64_t b) { return a + b; }
  static DDPM_INLINE Wide multiply(Wide a, uint32_t b) { return uint64_t(uint32_t(a)) * b; }
  static DDPM_INLINE Wide high(Wide a) { return a >> 32; }
  static DDPM_INLINE Wide exclusive_or(Wide a, uint32_t b) { return a ^ b; }
  static DDPM_INLINE Wide exclusive_or(Wide a, Wide b, uint32_t c) { return a ^ b ^ c; }
  static DDPM_INLINE Word narrow_low(Wide a) { return uint32_t(a); }
  static DDPM_INLINE Word narrow_high(Wide a) { return uint32_t(a >> 32); }
  static DDPM_INLINE Word exclusive_or_words(Word a, Word b, uint32_t c) { return a ^ b ^ c; }
  static DDPM_INLINE Word leading_zeros(Word a) {
#ifdef __CUDA_ARCH__
    return __clz(int(a));
#else
    return a ? uint32_t(__builtin_clz(a)) : 32u;
#endif
  }
  static DDPM_INLINE Word shift_left(Word a, Word k) { return a << (k & 31); }  // k = 32 only where a = 0
  static DDPM_INLINE Float to_float(Word a) { return float(int32_t(a)); }
  static DDPM_INLINE Float constant(float a) { return a; }
  static DDPM_INLINE Float square_root(Float a) { return sqrtf(a); }
  static DDPM_INLINE Float flip_sign(Float a, Word last_bit) { return (last_bit & 1) ? -a : a; }
  static DDPM_INLINE Float load(const float* from) { return *from; }
  static DDPM_INLINE Float load(const Brain* from) { return brain_to_float(*from); }
  static DDPM_INLINE Float load(const Half* from) { return half_to_float(*from); }
  static DDPM_INLINE void store(float* to, Float a) { *to = a; }
  static DDPM_INLINE void store(Brain* to, Float a) { *to = float_to_brain(a); }
  static DDPM_INLINE void store(Half* to, Float a) { *to = float_to_half(a); }
  static DDPM_INLINE Float rounded(Float a, const float*) { return a; }
  static DDPM_INLINE Float rounded(Float a, const Brain*) { return brain_to_float(float_to_brain(a)); }
  static DDPM_INLINE Float rounded(Float a, const Half*) { return half_to_float(float_to_half(a)); }
};

#if defined(__AVX512F__) && !defined(__CUDACC__)

struct Lanes {
  static constexpr int kLanes = 16, kParts = 1;
  using Part = Lanes;
  using Word = __m512i;
  using Float = __m512;
  struct Wide {
    __m512i even, odd;
  };
  static DDPM_INLINE Float part(Float x, int) { return x; }
  static DDPM_INLINE Word part(Word x, int) { return x; }
  static DDPM_INLINE void store(uint32_t* to, Word a) { _mm512_storeu_si512((__m512i*)to, a); }
  static DDPM_INLINE __m512i words(uint32_t a) { return _mm512_set1_epi32(int(a)); }
  static DDPM_INLINE Wide multiples(uint32_t factor, uint32_t first) {
    const __m512i even = _mm512_add_epi32(words(first), _mm512_set_epi32(0, 14, 0, 12, 0, 10, 0, 8, 0, 6, 0, 4, 0, 2, 0, 0));
    return multiply({even, _mm512_add_epi32(even, words(1))}, factor);
  }
  static DDPM_INLINE Wide add(Wide a, uint64_t b) {
    const __m512i all = _mm512_set1_epi64(int64_t(b));
    return {_mm512_add_epi64(a.even, all), _mm512_add_epi64(a.odd, all)};
  }
  static DDPM_INLINE Wide multiply(Wide a, uint32_t b) {
    return {_mm512_mul_epu32(a.even, words(b)), _mm512_mul_epu32(a.odd, words(b))};
  }
  static DDPM_INLINE Wide high(Wide a) { return {_mm512_srli_epi64(a.even, 32), _mm512_srli_epi64(a.odd, 32)}; }
  static DDPM_INLINE Wide exclusive_or(Wide a, uint32_t b) {
    return {_mm512_xor_si512(a.even, words(b)), _mm512_xor_si512(a.odd, words(b))};
  }
  static DDPM_INLINE Word exclusive_or_words(Word a, Word b, uint32_t c) {
    return _mm512_ternarylogic_epi32(a, b, words(c), 0x96);
  }
  static DDPM_INLINE Wide exclusive_or(Wide a, Wide b, uint32_t c) {
    return {exclusive_or_words(a.even, b.even, c), exclusive_or_words(a.odd, b.odd, c)};
  }
  static DDPM_INLINE Word narrow_low(Wide a) {
    return _mm512_mask_shuffle_epi32(a.even, 0xAAAA, a.odd, _MM_PERM_CCAA);
  }
  static DDPM_INLINE Word narrow_high(Wide a) {
    return _mm512_mask_shuffle_epi32(a.odd, 0x5555, a.even, _MM_PERM_DDBB);
  }
  static DDPM_INLINE Word leading_zeros(Word a) { return _mm512_lzcnt_epi32(a); }
  static DDPM_INLINE Word shift_left(Word a, Word k) { return _mm512_sllv_epi32(a, k); }
  static DDPM_INLINE Float to_float(Word a) { return _mm512_cvtepi32_ps(a); }
  static DDPM_INLINE Float constant(float a) { return _mm512_set1_ps(a); }
  static DDPM_INLINE Float square_root(Float a) { return _mm512_sqrt_ps(a); }
  static DDPM_INLINE Float flip_sign(Float a, Word last_bit) {
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_slli_epi32(last_bit, 31)));
  }
  static DDPM_INLINE __m256i load16(const void* from) { return _mm256_loadu_si256((const __m256i*)from); }
  static DDPM_INLINE void store16(void* to, __m256i a) { _mm256_storeu_si256((__m256i*)to, a); }
  static DDPM_INLINE Float load(const float* from) { return _mm512_loadu_ps(from); }
  static DDPM_INLINE Float load(const Brain* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load16(from)), 16));
  }
  static DDPM_INLINE Float load(const Half* from) { return _mm512_cvtph_ps(load16(from)); }
  static DDPM_INLINE void store(float* to, Float a) { _mm512_storeu_ps(to, a); }
  static DDPM_INLINE void store(Brain* to, Float a) { store16(to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(brain(a), 16))); }
  static DDPM_INLINE void store(Half* to, Float a) { store16(to, half(a)); }
  static DDPM_INLINE Float rounded(Float a, const float*) { return a; }
  static DDPM_INLINE Float rounded(Float a, const Brain*) {
    return _mm512_castsi512_ps(_mm512_and_si512(brain(a), words(0xFFFF0000u)));
  }
  static DDPM_INLINE Float rounded(Float a, const Half*) { return _mm512_cvtph_ps(half(a)); }
  static DDPM_INLINE __m256i half(Float a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
  // Round to nearest even in the upper 16 bits; a NaN stays a NaN.
  static DDPM_INLINE Word brain(Float a) {
    const Word bits = _mm512_castps_si512(a);
    const Word last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), words(1));
    const Word up = _mm512_add_epi32(bits, _mm512_add_epi32(last, words(0x7FFF)));
    return _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), bits, words(1u << 22));
  }
};

#elif defined(__AVX2__) && !defined(__CUDACC__)

struct Lanes {
  static constexpr int kLanes = 8, kParts = 1;
  using Part = Lanes;
  using Word = __m256i;
  using Float = __m256;
  struct Wide {
    __m256i even, odd;
  };
  static DDPM_INLINE Float part(Float x, int) { return x; }
  static DDPM_INLINE Word part(Word x, int) { return x; }
  static DDPM_INLINE void store(uint32_t* to, Word a) { _mm256_storeu_si256((__m256i*)to, a); }
  static DDPM_INLINE __m256i words(uint32_t a) { return _mm256_set1_epi32(int(a)); }
  static DDPM_INLINE Wide multiples(uint32_t factor, uint32_t first) {
    const __m256i even = _mm256_add_epi32(words(first), _mm256_set_epi32(0, 6, 0, 4, 0, 2, 0, 0));
    return multiply({even, _mm256_add_epi32(even, words(1))}, factor);
  }
  static DDPM_INLINE Wide add(Wide a, uint64_t b) {
    const __m256i all = _mm256_set1_epi64x(int64_t(b));
    return {_mm256_add_epi64(a.even, all), _mm256_add_epi64(a.odd, all)};
  }
  static DDPM_INLINE Wide multiply(Wide a, uint32_t b) {
    return {_mm256_mul_epu32(a.even, words(b)), _mm256_mul_epu32(a.odd, words(b))};
  }
  static DDPM_INLINE Wide high(Wide a) { return {_mm256_srli_epi64(a.even, 32), _mm256_srli_epi64(a.odd, 32)}; }
  static DDPM_INLINE Wide exclusive_or(Wide a, uint32_t b) {
    return {_mm256_xor_si256(a.even, words(b)), _mm256_xor_si256(a.odd, words(b))};
  }
  static DDPM_INLINE Word exclusive_or_words(Word a, Word b, uint32_t c) {
    return _mm256_xor_si256(_mm256_xor_si256(a, b), words(c));
  }
  static DDPM_INLINE Wide exclusive_or(Wide a, Wide b, uint32_t c) {
    return {exclusive_or_words(a.even, b.even, c), exclusive_or_words(a.odd, b.odd, c)};
  }
  static DDPM_INLINE Word narrow_low(Wide a) {
    return _mm256_blend_epi32(a.even, _mm256_shuffle_epi32(a.odd, 0xA0), 0xAA);
  }
  static DDPM_INLINE Word narrow_high(Wide a) {
    return _mm256_blend_epi32(_mm256_shuffle_epi32(a.even, 0xF5), a.odd, 0xAA);
  }
  // From the exponent of a number; clearing the bit below every set bit keeps its rounding from reaching the next power
  // of two. From 2^31 on, the signed number is negative and the unsigned difference saturates at 0.
  static DDPM_INLINE Word leading_zeros(Word a) {
    const __m256i sparse = _mm256_andnot_si256(_mm256_srli_epi32(a, 1), a);
    const __m256i exponent = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(sparse)), 23);
    return _mm256_min_epi16(_mm256_subs_epu16(words(158), exponent), words(32));
  }
  static DDPM_INLINE Word shift_left(Word a, Word k) { return _mm256_sllv_epi32(a, k); }
  static DDPM_INLINE Float to_float(Word a) { return _mm256_cvtepi32_ps(a); }
  static DDPM_INLINE Float constant(float a) { return _mm256_set1_ps(a); }
  static DDPM_INLINE Float square_root(Float a) { return _mm256_sqrt_ps(a); }
  static DDPM_INLINE Float flip_sign(Float a, Word last_bit) {
    return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(last_bit, 31)));
  }
  static DDPM_INLINE __m128i load16(const void* from) { return _mm_loadu_si128((const __m128i*)from); }
  static DDPM_INLINE void store16(void* to, __m128i a) { _mm_storeu_si128((__m128i*)to, a); }
  static DDPM_INLINE Float load(const float* from) { return _mm256_loadu_ps(from); }
  static DDPM_INLINE Float load(const Brain* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(from)), 16));
  }
  static DDPM_INLINE Float load(const Half* from) { return _mm256_cvtph_ps(load16(from)); }
  static DDPM_INLINE void store(float* to, Float a) { _mm256_storeu_ps(to, a); }
  static DDPM_INLINE void store(Brain* to, Float a) {
    const __m256i low = _mm256_srli_epi32(brain(a), 16);
    store16(to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08)));
  }
  static DDPM_INLINE void store(Half* to, Float a) { store16(to, half(a)); }
  static DDPM_INLINE Float rounded(Float a, const float*) { return a; }
  static DDPM_INLINE Float rounded(Float a, const Brain*) {
    return _mm256_castsi256_ps(_mm256_and_si256(brain(a), words(0xFFFF0000u)));
  }
  static DDPM_INLINE Float rounded(Float a, const Half*) { return _mm256_cvtph_ps(half(a)); }
  static DDPM_INLINE __m128i half(Float a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
  // Round to nearest even in the upper 16 bits; a NaN stays a NaN.
  static DDPM_INLINE Word brain(Float a) {
    const Word bits = _mm256_castps_si256(a);
    const Word last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), words(1));
    const Word up = _mm256_add_epi32(bits, _mm256_add_epi32(last, words(0x7FFF)));
    const Word nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(up, _mm256_or_si256(bits, words(1u << 22)), nan);
  }
};

#endif

// Two sets side by side: a single one waits for its own results most of the time.
template <class L>
struct Pair {
  static constexpr int kLanes = 2 * L::kLanes, kParts = 2;
  using Part = L;
  struct Wide {
    typename L::Wide a, b;
  };
  struct Word {
    typename L::Word a, b;
  };
  struct Float {
    typename L::Float a, b;
    friend DDPM_INLINE Float operator+(Float x, Float y) { return {x.a + y.a, x.b + y.b}; }
    friend DDPM_INLINE Float operator-(Float x, Float y) { return {x.a - y.a, x.b - y.b}; }
    friend DDPM_INLINE Float operator*(Float x, Float y) { return {x.a * y.a, x.b * y.b}; }
    friend DDPM_INLINE Float operator/(Float x, Float y) { return {x.a / y.a, x.b / y.b}; }
  };
  static DDPM_INLINE typename L::Float part(Float x, int i) { return i ? x.b : x.a; }
  static DDPM_INLINE typename L::Word part(Word x, int i) { return i ? x.b : x.a; }
  static DDPM_INLINE Wide multiples(uint32_t factor, uint32_t first) {
    return {L::multiples(factor, first), L::multiples(factor, first + L::kLanes)};
  }
  static DDPM_INLINE Wide add(Wide x, uint64_t y) { return {L::add(x.a, y), L::add(x.b, y)}; }
  static DDPM_INLINE Wide multiply(Wide x, uint32_t y) { return {L::multiply(x.a, y), L::multiply(x.b, y)}; }
  static DDPM_INLINE Wide high(Wide x) { return {L::high(x.a), L::high(x.b)}; }
  static DDPM_INLINE Wide exclusive_or(Wide x, uint32_t y) { return {L::exclusive_or(x.a, y), L::exclusive_or(x.b, y)}; }
  static DDPM_INLINE Wide exclusive_or(Wide x, Wide y, uint32_t z) {
    return {L::exclusive_or(x.a, y.a, z), L::exclusive_or(x.b, y.b, z)};
  }
  static DDPM_INLINE Word exclusive_or_words(Word x, Word y, uint32_t z) {
    return {L::exclusive_or_words(x.a, y.a, z), L::exclusive_or_words(x.b, y.b, z)};
  }
  static DDPM_INLINE Word narrow_low(Wide x) { return {L::narrow_low(x.a), L::narrow_low(x.b)}; }
  static DDPM_INLINE Word narrow_high(Wide x) { return {L::narrow_high(x.a), L::narrow_high(x.b)}; }
  static DDPM_INLINE Word leading_zeros(Word x) { return {L::leading_zeros(x.a), L::leading_zeros(x.b)}; }
  static DDPM_INLINE Word shift_left(Word x, Word k) { return {L::shift_left(x.a, k.a), L::shift_left(x.b, k.b)}; }
  static DDPM_INLINE Float to_float(Word x) { return {L::to_float(x.a), L::to_float(x.b)}; }
  static DDPM_INLINE Float constant(float x) { return {L::constant(x), L::constant(x)}; }
  static DDPM_INLINE Float square_root(Float x) { return {L::square_root(x.a), L::square_root(x.b)}; }
  static DDPM_INLINE Float flip_sign(Float x, Word y) { return {L::flip_sign(x.a, y.a), L::flip_sign(x.b, y.b)}; }
};

}  // namespace
