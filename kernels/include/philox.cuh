// Counter-based random numbers, bit for bit those of `Philox` in llada-tensor.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <stdint.h>

namespace llada {

// What a number is drawn for; the last word of the counter. As `Stream` in llada-tensor.
constexpr uint32_t kStreamGumbel = 6;

// The Philox4x32 bijection with ten rounds.
__device__ __forceinline__ uint4 philox(uint4 counter, uint64_t seed) {
  uint32_t key_low = static_cast<uint32_t>(seed), key_high = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key_low, low1, high0 ^ counter.w ^ key_high, low0);
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// Uniform on the open interval (0, 1), 52 bits: (k + 1/2) / 2^52.
__device__ __forceinline__ double unit_f64(uint32_t low, uint32_t high) {
  const uint64_t k = ((static_cast<uint64_t>(high) << 32) | low) >> 12;
  return (static_cast<double>(k) + 0.5) * (1.0 / 4503599627370496.0);
}

// The draws of an even vocabulary entry and of the one after it. `key` is the sequence, the
// position and the step of the row; position and step share a word.
__device__ __forceinline__ double2 gumbel_uniforms(uint64_t seed, const uint32_t* key,
                                                   uint32_t pair) {
  const uint32_t place = (key[1] << 12) ^ key[2];
  const uint4 words = philox(make_uint4(pair, place, key[0], kStreamGumbel), seed);
  return make_double2(unit_f64(words.x, words.y), unit_f64(words.z, words.w));
}

}  // namespace llada
