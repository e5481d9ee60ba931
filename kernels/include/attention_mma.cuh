// Forward attention on tensor cores: head dimension 64 or 128, operands of bf16, f32 sums.
//
// A block computes kRows queries of one head of one sequence with four warps. A warp owns
// kRows / 4 of them, in row blocks of 16, with their scores, running maximum, running sum and
// output in registers. Keys and values pass through a ring of tiles of 64 rows in shared memory,
// in the order K_0 V_0 K_1 V_1 ...; cp.async fills it kStages - 1 tiles ahead. Per tile of keys:
//
//   S = Q K_t^T;  m' = max(m, rowmax(S));  P = 2^(S - m');  l = l 2^(m - m') + rowsum(P)
//   O = O 2^(m - m') + P V_t
//
// The queries are multiplied by log2(e) / sqrt(E) before they are rounded, so that scores are
// binary logarithms. P is rounded to bf16 for the second product, but not for its sum.
//
// Shared memory: rows of 2 E bytes in chunks of 16; chunk c of row r lies at place c ^ (r % 8), so
// that neither ldmatrix (8 rows of one chunk) nor cp.async (8 chunks of one row) meets a bank
// twice. All rows that a lane asks for have the same r % 8; therefore its addresses in a tile are
// one of four, which differ by an exclusive or with a constant, plus a constant.
//
// Which keys a tile has depends neither on kRows nor on the other queries: a row of the output has
// the same bits in every tile, batch and window.
#pragma once

#include <stdint.h>

#include "attention.cuh"
#include "mma.cuh"
#include "reduce.cuh"

namespace llada {

template <int kHeadDim, int kRows>
struct AttentionForward {
  static constexpr int kThreads = LLADA_ATTENTION_THREADS;
  static constexpr int kKeys = LLADA_ATTENTION_KEYS;
  static constexpr int kRowBlocks = kRows / 16 / (kThreads / 32);  // of a warp
  static constexpr int kRowBytes = 2 * kHeadDim;
  static constexpr int kTileBytes = kKeys * kRowBytes;
  static constexpr int kChunks = kHeadDim / 8;          // of a row
  static constexpr int kPassRows = kThreads / kChunks;  // that all threads copy at once
  static constexpr int kPasses = kKeys / kPassRows;
  static constexpr int kHeadSteps = kHeadDim / 16;  // of the first product
  static constexpr int kKeySteps = kKeys / 16;      // of the second
  // With more of them the queries are read from shared memory for every tile of keys.
  static constexpr bool kQueriesInRegisters = kRowBlocks * kHeadSteps <= 8;
  // Queries in registers leave their shared memory to the last tile of the ring.
  static constexpr bool kQueriesInRing = kQueriesInRegisters && kRows <= kKeys;
  static constexpr int kStages =
      kHeadDim == 64 ? LLADA_ATTENTION_STAGES_D64 : LLADA_ATTENTION_STAGES_D128;
  static constexpr int kRingBytes = kStages * kTileBytes;
  static constexpr int kQueriesAt = kQueriesInRing ? kRingBytes - kTileBytes : kRingBytes;
  static_assert(kQueriesInRing == (kRows == kKeys), "launch/attention.rs knows no more");
  static_assert(kRowBlocks >= 1 && kPassRows % 8 == 0, "all passes of a lane have its r % 8");

  int last_key, n_tiles;

  // Bytes before this thread's chunk of the first key and value, where it copies to in a tile, and
  // in which row.
  int64_t copy_from;
  int copy_row;
  uint32_t copy_lane;

  // Where this lane reads a fragment in a tile, but for the exclusive or.
  uint32_t query_lane, key_lane, value_lane;
  // Offset in the ring of the tile to read next.
  uint32_t read_at = 0;

  uint32_t queries[kQueriesInRegisters ? kRowBlocks : 1][kHeadSteps][4];
  float scores[kRowBlocks][kKeys / 8][4];
  float out[kRowBlocks][kHeadDim / 8][4];
  float row_max[kRowBlocks][2], row_sum[kRowBlocks][2];

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int first_row() { return blockIdx.x * kRows; }

  // Row of the block that this lane's fragments hold in a half of a row block.
  static __device__ int row_of(int block, int half) {
    return (threadIdx.x / 32 * kRowBlocks + block) * 16 + half * 8 + lane() / 4;
  }

  static __device__ constexpr uint32_t place_of(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }

  // The address of chunk `2 step` columns further: `step` is a constant after unrolling.
  static __device__ uint32_t at_step(uint32_t address, int step) {
    return (address ^ ((step & 3) << 5)) + ((step >> 2) << 7);
  }

  __device__ AttentionForward(const LladaAttentionArgs& args, const AttentionPlace& place,
                              uint32_t shared)
      : last_key(place.n_keys - 1) {
    const int last_query = min(first_row() + kRows, place.n_queries) - 1;
    n_tiles = (place.seen(last_query) + kKeys - 1) / kKeys;
    const int head = blockIdx.y;
    const int kv_head = head / (args.places.n_heads / args.places.n_kv_heads);
    const int chunk = threadIdx.x % kChunks;
    copy_row = threadIdx.x / kChunks;
    copy_lane = shared + place_of(copy_row, chunk);
    copy_from = 2 * (place.first_key * args.kv_stride + kv_head * kHeadDim + chunk * 8);
    const int query_row = row_of(0, 0) - lane() / 4 + lane() % 16;
    query_lane = shared + kQueriesAt + place_of(query_row, lane() / 16);
    key_lane = shared + place_of(lane() % 8 + lane() / 16 * 8, lane() / 8 % 2);
    value_lane = shared + place_of(lane() % 16, lane() / 16);
  }

  __device__ void next() {
    read_at = read_at == kRingBytes - kTileBytes ? 0 : read_at + kTileBytes;
  }

  // Asks for the keys or values of a tile, if there is one; always closes a group. Rows past the
  // end repeat the last one.
  __device__ void fill(const LladaAttentionArgs& args, bool is_values, int tile,
                       uint32_t at) {
    if (tile < n_tiles) {
      const void* matrix = is_values ? args.v : args.k;
      const char* source = kept(static_cast<const char*>(matrix) + copy_from);
      const uint32_t stride = static_cast<uint32_t>(args.kv_stride) * 2;
      const int row = tile * kKeys + copy_row;
#pragma unroll
      for (int pass = 0; pass < kPasses; pass++) {
        const uint32_t from = min(row + pass * kPassRows, last_key);
        cp_async_16_at(copy_lane + at + pass * kPassRows * kRowBytes,
                       source + static_cast<uint64_t>(from) * stride);
      }
    }
    cp_async_commit();
  }

  // Waits for the oldest tile of the ring and asks for the next one, in place of the tile that
  // all warps have left.
  __device__ void advance(const LladaAttentionArgs& args, bool is_values, int tile) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    fill(args, is_values, tile, (read_at == 0 ? kRingBytes : read_at) - kTileBytes);
  }

  // Rounds the queries of the block into shared memory.
  __device__ void load_queries(const LladaAttentionArgs& args, const AttentionPlace& place,
                               unsigned char* shared_memory) {
    const float factor = args.places.scale * kLog2E;
    const int64_t first = place.first_query * args.q_stride + blockIdx.y * kHeadDim;
    constexpr int kStride = kThreads / kChunks;
    const int chunk = threadIdx.x % kChunks;
#pragma unroll 4
    for (int row = threadIdx.x / kChunks; row < kRows; row += kStride) {
      const int from = min(first_row() + row, place.n_queries - 1);
      const uint4 rounded = scaled_chunk(
          args.q, args.is_bf16 != 0, first + from * args.q_stride + chunk * 8, factor);
      *reinterpret_cast<uint4*>(shared_memory + kQueriesAt + place_of(row, chunk)) = rounded;
    }
  }

  __device__ void load_query_fragment(uint32_t (&fragment)[4], int block, int step) {
    ldmatrix_x4_at(fragment, at_step(query_lane, step) + block * 16 * kRowBytes);
  }

  // scores = Q K^T.
  __device__ void multiply_keys() {
    const uint32_t tile = key_lane + read_at;
#pragma unroll
    for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) scores[block][n][i] = 0.0f;
      }
    }
    // Queries in registers need constant steps; queries in shared memory leave too few registers to
    // fetch further ahead.
#pragma unroll(kQueriesInRegisters ? kHeadSteps : 4)
    for (int step = 0; step < kHeadSteps; step++) {
      uint32_t fragments[kRowBlocks][4];
#pragma unroll
      for (int block = 0; block < kRowBlocks; block++) {
        if constexpr (kQueriesInRegisters) {
#pragma unroll
          for (int i = 0; i < 4; i++) fragments[block][i] = queries[block][step][i];
        } else {
          load_query_fragment(fragments[block], block, step);
        }
      }
      const uint32_t address = at_step(tile, step);
#pragma unroll
      for (int n = 0; n < kKeys / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_at(b, address + n * 16 * kRowBytes);
#pragma unroll
        for (int block = 0; block < kRowBlocks; block++) {
          mma_16816(scores[block][2 * n], fragments[block], b[0], b[1]);
          mma_16816(scores[block][2 * n + 1], fragments[block], b[2], b[3]);
        }
      }
    }
    next();
  }

  // Hides keys that a query does not see.
  __device__ void mask(const LladaAttentionArgs& args, int tile) {
    const AttentionPlace place(args.places, blockIdx.z);
    const int first = tile * kKeys + lane() % 4 * 2;
#pragma unroll
    for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int seen = place.seen(first_row() + row_of(block, half)) - first;
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            if (n * 8 + i >= seen) scores[block][n][2 * half + i] = -CUDART_INF_F;
          }
        }
      }
    }
  }

  // Turns scores into probabilities, up to the factor that the last maximum will give them.
  __device__ void softmax() {
#pragma unroll
    for (int block = 0; block < kRowBlocks; block++) {
      float corrections[2];
      bool changed = false;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float max = row_max[block][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
          max = fmaxf(max, fmaxf(scores[block][n][2 * half], scores[block][n][2 * half + 1]));
        }
        max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 1));
        max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 2));
        changed |= max != row_max[block][half];
        // A row that has seen no key yet must not subtract infinities.
        const float shift = max == -CUDART_INF_F ? 0.0f : max;
        corrections[half] = exp2_approx(row_max[block][half] - shift);
        row_max[block][half] = max;
        float sum = row_sum[block][half] * corrections[half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            scores[block][n][i] = exp2_approx(scores[block][n][i] - shift);
            sum += scores[block][n][i];
          }
        }
        row_sum[block][half] = sum;
      }
      // Most tiles do not change a maximum; a factor of one changes no bit.
      if (__any_sync(kFullWarp, changed)) {
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) out[block][n][i] *= corrections[i / 2];
        }
      }
    }
  }

  // out += P V.
  __device__ void multiply_values() {
    const uint32_t tile = value_lane + read_at;
#pragma unroll
    for (int step = 0; step < kKeySteps; step++) {
      uint32_t p[kRowBlocks][4];
#pragma unroll
      for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float* pair = &scores[block][2 * step + i / 2][i % 2 * 2];
          p[block][i] = pack_pair(pair[0], pair[1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kHeadDim / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_trans_at(b, at_step(tile, n) + step * 16 * kRowBytes);
#pragma unroll
        for (int block = 0; block < kRowBlocks; block++) {
          mma_16816(out[block][2 * n], p[block], b[0], b[1]);
          mma_16816(out[block][2 * n + 1], p[block], b[2], b[3]);
        }
      }
    }
    next();
  }

  // The tile that is asked for is kStages - 1 places further in the order K_0 V_0 K_1 V_1 ...
  template <bool kMasked>
  __device__ void visit(const LladaAttentionArgs& args, int tile) {
    constexpr int kAhead = kStages - 1;
    advance(args, kAhead % 2 != 0, tile + kAhead / 2);
    multiply_keys();
    if constexpr (kMasked) mask(args, tile);
    softmax();
    advance(args, kAhead % 2 == 0, tile + (kAhead + 1) / 2);
    multiply_values();
  }

  __device__ void store(const LladaAttentionArgs& args) {
    const AttentionPlace place(args.places, blockIdx.z);
    const int n_heads = args.places.n_heads;
#pragma unroll
    for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float sum = row_sum[block][half];
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        const int query = first_row() + row_of(block, half);
        if (query >= place.n_queries) continue;
        const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
        const int64_t token = place.first_query + query;
        const int64_t at = token * args.q_stride + blockIdx.y * kHeadDim + lane() % 4 * 2;
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; n++) {
          const float* pair = &out[block][n][2 * half];
          const float first = pair[0] * factor, second = pair[1] * factor;
          if (args.is_bf16 != 0) {
            uint16_t* y = static_cast<uint16_t*>(args.y) + at + n * 8;
            *reinterpret_cast<uint32_t*>(y) = pack_pair(first, second);
          } else {
            float* y = static_cast<float*>(args.y) + at + n * 8;
            *reinterpret_cast<float2*>(y) = make_float2(first, second);
          }
        }
        if (lane() % 4 == 0) {
          const float lse = row_max[block][half] * kLn2 + logf(sum);
          args.lse[token * n_heads + blockIdx.y] = sum > 0.0f ? lse : -CUDART_INF_F;
        }
      }
    }
  }

  __device__ void run(const LladaAttentionArgs& args, const AttentionPlace& place,
                      unsigned char* shared_memory) {
#pragma unroll
    for (int ahead = 0; ahead < kStages - 1; ahead++) {
      fill(args, ahead % 2 != 0, ahead / 2, ahead * kTileBytes);
    }
    load_queries(args, place, shared_memory);
    __syncthreads();
    if constexpr (kQueriesInRegisters) {
#pragma unroll
      for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
        for (int step = 0; step < kHeadSteps; step++) {
          load_query_fragment(queries[block][step], block, step);
        }
      }
    }
#pragma unroll
    for (int block = 0; block < kRowBlocks; block++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        row_max[block][half] = -CUDART_INF_F;
        row_sum[block][half] = 0.0f;
      }
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) out[block][n][i] = 0.0f;
      }
    }
    // Only the last tiles have something to mask.
    const int n_plain = place.seen(first_row()) / kKeys;
    int tile = 0;
    for (; tile < n_plain; tile++) visit<false>(args, tile);
    for (; tile < n_tiles; tile++) visit<true>(args, tile);
    store(args);
  }
};

template <int kHeadDim, int kRows>
__device__ __forceinline__ void attention_fwd(const LladaAttentionArgs& args) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  const AttentionPlace place(args.places, blockIdx.z);
  if (static_cast<int>(blockIdx.x) * kRows >= place.n_queries) return;
  AttentionForward<kHeadDim, kRows> forward(args, place, shared_address(shared_memory));
  forward.run(args, place, shared_memory);
}

}  // namespace llada
