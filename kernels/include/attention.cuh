// What all kernels of attention.cu share: where the sequence of a block lies, and which keys a
// query sees.
#pragma once

#include <math_constants.h>
#include <stdint.h>

#include "llada_kernels.h"

namespace llada {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

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
