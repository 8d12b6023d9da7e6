// bf16 and fp16 as 16 bits in memory, rounded to nearest even, for processors and modes without instructions for it.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "philox_normal.h"

namespace {

struct Brain {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

DDPM_INLINE uint32_t float_bits(float a) {
  uint32_t bits;
  memcpy(&bits, &a, 4);
  return bits;
}

DDPM_INLINE float bits_float(uint32_t bits) {
  float a;
  memcpy(&a, &bits, 4);
  return a;
}

DDPM_INLINE float brain_to_float(Brain a) { return bits_float(uint32_t(a.bits) << 16); }

DDPM_INLINE Brain float_to_brain(float a) {
  const uint32_t bits = float_bits(a);
  if (a != a) return {uint16_t((bits >> 16) | 0x40)};
  return {uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

DDPM_INLINE float half_to_float(Half a) {
  const uint32_t sign = uint32_t(a.bits & 0x8000) << 16, magnitude = a.bits & 0x7FFF;
  if (magnitude >= 0x7C00) return bits_float(sign | 0x7F800000 | (magnitude << 13));
  return bits_float(sign | float_bits(bits_float(magnitude << 13) * 0x1p112f));  // exact, subnormals included
}

DDPM_INLINE Half float_to_half(float a) {
  const uint32_t bits = float_bits(a), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return {uint16_t(sign | 0x7E00)};
  if (magnitude >= 0x477FF000) return {uint16_t(sign | 0x7C00)};  // 65520 and more round to infinity
  if (magnitude < 0x38800000)  // below 2^-14: adding 1/2 leaves multiples of 2^-24
    return {uint16_t(sign | (float_bits(bits_float(magnitude) + 0.5f) - 0x3F000000))};
  return {uint16_t(sign | ((magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13))};
}

}  // namespace
