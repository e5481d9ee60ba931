// Counter-based random numbers: Philox4x32-10, bit for bit those of `llada_tensor::Philox`.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <stdint.h>

namespace llada {

// The Philox4x32 bijection with ten rounds.
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t low0 = counter.x * 0xD2511F53u, high0 = __umulhi(counter.x, 0xD2511F53u);
    const uint32_t low1 = counter.z * 0xCD9E8D57u, high1 = __umulhi(counter.z, 0xCD9E8D57u);
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
  }
  return counter;
}

// A generator keyed by a seed and a stream; every draw is a pure function of its counter. The
// streams are those of `llada_tensor::Stream`.
struct Philox {
  uint2 key;
  uint32_t stream;

  __device__ Philox(uint64_t seed, uint32_t stream)
      : key(make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32))),
        stream(stream) {}

  // Four random words for a counter of three words (the fourth is the stream).
  __device__ __forceinline__ uint4 words(uint32_t a, uint32_t b, uint32_t c) const {
    return philox4x32_10(make_uint4(a, b, c, stream), key);
  }

  // Two independent draws from one block, uniform on the open interval (0, 1), 52 bits:
  // `(k + 1/2) / 2^52`.
  __device__ __forceinline__ double2 uniform_f64_pair(uint32_t a, uint32_t b, uint32_t c) const {
    const uint4 w = words(a, b, c);
    return make_double2(unit_f64(w.x, w.y), unit_f64(w.z, w.w));
  }

  __device__ static __forceinline__ double unit_f64(uint32_t low, uint32_t high) {
    const uint64_t word = low | static_cast<uint64_t>(high) << 32;
    const double k = __ull2double_rn(word >> 12);
    return __dmul_rn(__dadd_rn(k, 0.5), 1.0 / 4503599627370496.0);
  }
};

}  // namespace llada
