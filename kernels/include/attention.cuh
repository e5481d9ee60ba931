// What all kernels of attention.cu share: where the sequence of a block lies, and which keys a
// query sees.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "llada_kernels.h"
#include "mma.cuh"

namespace llada {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// Eight elements of a matrix from `at` on, of f32 or if `is_bf16` of bf16, times a factor and
// rounded to bf16. They start at 16 bytes.
__device__ __forceinline__ uint4 scaled_chunk(const void* matrix, bool is_bf16, int64_t at,
                                              float factor) {
  float x[8];
  if (is_bf16) {
    const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(matrix) + at);
    unpack_pair(v.x, x[0], x[1]);
    unpack_pair(v.y, x[2], x[3]);
    unpack_pair(v.z, x[4], x[5]);
    unpack_pair(v.w, x[6], x[7]);
  } else {
    const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(matrix) + at);
    const float4 a = from[0], b = from[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  }
  uint4 rounded;
  rounded.x = pack_pair(x[0] * factor, x[1] * factor);
  rounded.y = pack_pair(x[2] * factor, x[3] * factor);
  rounded.z = pack_pair(x[4] * factor, x[5] * factor);
  rounded.w = pack_pair(x[6] * factor, x[7] * factor);
  return rounded;
}

// The queries and keys of one sequence of a ragged batch. Tokens are fewer than 2^30.
struct AttentionPlace {
  int first_query, n_queries;
  int first_key, n_keys;
  int block_size;  // 0: every query sees all keys

  __device__ AttentionPlace(const LladaAttentionPlaces& places, int sequence)
      : first_query(static_cast<int>(places.offsets[sequence])),
        n_queries(static_cast<int>(places.offsets[sequence + 1]) - first_query),
        first_key(static_cast<int>(places.key_offsets[sequence])),
        n_keys(static_cast<int>(places.key_offsets[sequence + 1]) - first_key),
        block_size(places.block_size) {}

  // How many keys a query sees: the first ones.
  __device__ int seen(int query) const {
    if (block_size == 0) return n_keys;
    return min((query / block_size + 1) * block_size, n_keys);
  }

  // The first query that sees a key.
  __device__ int first_that_sees(int key) const {
    return block_size == 0 ? 0 : key / block_size * block_size;
  }
};

}  // namespace llada
