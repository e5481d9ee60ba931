// The gradient of attention on tensor cores: head dimension 64 or 128, operands of bf16, f32
// sums.
//
// Both kernels are one: a block owns 64 rows, of queries (q and dy) or of keys (k and v), and
// visits tiles of the other kind. With x1, x2 for the rows of the block and y1, y2 for the others:
//
//   S = x1 y1^T;  P = 2^(S - lse);  dS = P (x2 y2^T - D)
//   queries: dQ += dS y1          keys: dK += dS y1, dV += P y2 over all query heads of the group
//
// The queries were multiplied by log2(e) / sqrt(E) before they were rounded. P and dS are rounded
// for the second products. Four warps own 16 rows each, with their S, dS and sums in registers.
// Shared memory holds x1 and x2 and a ring of two stages, each a tile of y1, one of y2, and for
// keys lse and D of the tile's queries. Places in tiles are those of attention_mma.cuh.
#pragma once

#include "attention_mma.cuh"

namespace llada {

template <int kHeadDim, bool kOfKeys>
struct AttentionGradient {
  static constexpr int kThreads = LLADA_ATTENTION_THREADS;
  static constexpr int kRows = LLADA_ATTENTION_BACKWARD_ROWS;
  static constexpr int kOthers = LLADA_ATTENTION_BACKWARD_BYTES / 2 / kHeadDim;  // of a tile
  static constexpr int kRowBytes = 2 * kHeadDim;
  static constexpr int kTileBytes = LLADA_ATTENTION_BACKWARD_BYTES;
  static constexpr int kOwnBytes = kRows * kRowBytes;
  static constexpr int kStagesAt = 2 * kOwnBytes;
  static constexpr int kStates = 2 * kTileBytes;  // where lse and D lie in a stage
  static constexpr int kStageBytes = kStates + 2 * kOthers * 4;
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kPassRows = kThreads / kChunks;
  static constexpr int kHeadSteps = kHeadDim / 16;
  static constexpr int kOtherSteps = kOthers / 16;
  static_assert(kPassRows % 8 == 0 && kRows == kThreads / 2, "a warp owns 16 rows");

  using Sums = float[kHeadDim / 8][4];
  using Scores = float[kOthers / 8][4];

  const LladaAttentionBackwardArgs& args;
  const AttentionPlace place;
  unsigned char* const shared_memory;
  const int first_row;
  int head;  // query head, of the tile that is computed
  Scores p, ds;
  Sums sum1, sum2;
  // Of this lane's two rows, if they are queries: lse as a binary logarithm, and D.
  float row_lse[2], row_delta[2];

  __device__ AttentionGradient(const LladaAttentionBackwardArgs& args, const AttentionPlace& place,
                               unsigned char* shared_memory)
      : args(args),
        place(place),
        shared_memory(shared_memory),
        first_row(blockIdx.x * kRows),
        head(kOfKeys ? blockIdx.y * group() : blockIdx.y) {}

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int row_of(int half) { return threadIdx.x / 32 * 16 + half * 8 + lane() / 4; }
  __device__ int group() const { return args.places.n_heads / args.places.n_kv_heads; }
  __device__ int n_others() const { return kOfKeys ? place.n_queries : place.n_keys; }

  static __device__ constexpr uint32_t place_of(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }
  static __device__ uint32_t at_step(uint32_t address, int step) {
    return (address ^ ((step & 3) << 5)) + ((step >> 2) << 7);
  }

  // Copies rows of a head; rows past the end repeat the last one.
  template <int kCount>
  __device__ void copy(const void* matrix, bool is_keys, int of_head, int first, uint32_t at) {
    const int64_t stride = is_keys ? args.kv_stride : args.q_stride;
    const int64_t token = is_keys ? place.first_key : place.first_query;
    const int last = (is_keys ? place.n_keys : place.n_queries) - 1;
    const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    const int64_t start = token * stride + of_head * kHeadDim + chunk * 8;
    const char* source = kept(static_cast<const char*>(matrix) + 2 * start);
    const uint32_t row_bytes = static_cast<uint32_t>(stride) * 2;
    const uint32_t target = shared_address(shared_memory) + at + place_of(row, chunk);
#pragma unroll
    for (int pass = 0; pass < kCount / kPassRows; pass++) {
      const uint32_t from = min(first + row + pass * kPassRows, last);
      cp_async_16_at(target + pass * kPassRows * kRowBytes,
                     source + static_cast<uint64_t>(from) * row_bytes);
    }
  }

  // Asks for a tile of the others.
  __device__ void fill(int of_head, int tile, int stage) {
    const uint32_t at = kStagesAt + stage * kStageBytes;
    const int first = tile * kOthers, kv_head = of_head / group();
    if constexpr (kOfKeys) {
      copy<kOthers>(args.rounded_q, false, of_head, first, at);
      copy<kOthers>(args.rounded_dy, false, of_head, first, at + kTileBytes);
      if (threadIdx.x < kOthers) {
        const int query = min(first + static_cast<int>(threadIdx.x), place.n_queries - 1);
        const int64_t from =
            static_cast<int64_t>(place.first_query + query) * args.places.n_heads + of_head;
        unsigned char* to = shared_memory + at + kStates + threadIdx.x * 4;
        cp_async_4(to, args.lse + from);
        cp_async_4(to + kOthers * 4, args.delta + from);
      }
    } else {
      copy<kOthers>(args.rounded_k, true, kv_head, first, at);
      copy<kOthers>(args.rounded_v, true, kv_head, first, at + kTileBytes);
    }
  }

  // s = x y^T.
  static __device__ void multiply_rows(Scores& s, uint32_t x, uint32_t y) {
#pragma unroll
    for (int n = 0; n < kOthers / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) s[n][i] = 0.0f;
    }
    x += place_of(row_of(0) - lane() / 4 + lane() % 16, lane() / 16);
    y += place_of(lane() % 8 + lane() / 16 * 8, lane() / 8 % 2);
#pragma unroll
    for (int step = 0; step < kHeadSteps; step++) {
      uint32_t a[4];
      ldmatrix_x4_at(a, at_step(x, step));
#pragma unroll
      for (int n = 0; n < kOthers / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_at(b, at_step(y, step) + n * 16 * kRowBytes);
        mma_16816(s[2 * n], a, b[0], b[1]);
        mma_16816(s[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  // sums += s y.
  static __device__ void sum_rows(Sums& sums, const Scores& s, uint32_t y) {
    y += place_of(lane() % 16, lane() / 16);
#pragma unroll
    for (int step = 0; step < kOtherSteps; step++) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float* pair = &s[2 * step + i / 2][i % 2 * 2];
        a[i] = pack_pair(pair[0], pair[1]);
      }
#pragma unroll
      for (int n = 0; n < kHeadDim / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_trans_at(b, at_step(y, n) + step * 16 * kRowBytes);
        mma_16816(sums[2 * n], a, b[0], b[1]);
        mma_16816(sums[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  // A query without keys has probabilities 2^(s - inf) = 0.
  static __device__ float binary_lse(float lse) {
    return lse == -CUDART_INF_F ? CUDART_INF_F : lse * kLog2E;
  }

  // Hides pairs of which the query does not see the key.
  __device__ void mask(int tile) {
    const int first = tile * kOthers + lane() % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first_row + row_of(half);
      const int begin = kOfKeys ? place.first_that_sees(row) : 0;
      const int end = kOfKeys ? place.n_queries : place.seen(row);
#pragma unroll
      for (int n = 0; n < kOthers / 8; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int other = first + n * 8 + i;
          if (other < begin || other >= end) p[n][2 * half + i] = -CUDART_INF_F;
        }
      }
    }
  }

  // Whether a tile of the others has something to mask.
  __device__ bool is_edge(int tile) const {
    const int first = tile * kOthers, end = first + kOthers;
    if constexpr (kOfKeys) {
      return end > place.n_queries || first < place.first_that_sees(first_row + kRows - 1);
    } else {
      return end > place.seen(first_row);
    }
  }

  __device__ void visit(int tile, int stage) {
    const uint32_t x1 = shared_address(shared_memory), x2 = x1 + kOwnBytes;
    const uint32_t y1 = x1 + kStagesAt + stage * kStageBytes, y2 = y1 + kTileBytes;
    multiply_rows(p, x1, y1);
    if (is_edge(tile)) mask(tile);
    multiply_rows(ds, x2, y2);
    const float* states = reinterpret_cast<const float*>(
        shared_memory + kStagesAt + stage * kStageBytes + kStates);
#pragma unroll
    for (int n = 0; n < kOthers / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int other = n * 8 + lane() % 4 * 2 + i % 2;
        const float lse = kOfKeys ? binary_lse(states[other]) : row_lse[i / 2];
        const float delta = kOfKeys ? states[kOthers + other] : row_delta[i / 2];
        p[n][i] = exp2_approx(p[n][i] - lse);
        ds[n][i] = p[n][i] * (ds[n][i] - delta);
      }
    }
    if constexpr (kOfKeys) sum_rows(sum2, p, y2);
    sum_rows(sum1, ds, y1);
  }

  __device__ void store(float* matrix, int64_t stride, const Sums& sums, float factor) const {
    const int n_rows = kOfKeys ? place.n_keys : place.n_queries;
    const int64_t token = (kOfKeys ? place.first_key : place.first_query) + first_row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (first_row + row_of(half) >= n_rows) continue;
      float* to =
          matrix + (token + row_of(half)) * stride + blockIdx.y * kHeadDim + lane() % 4 * 2;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; n++) {
        const float* pair = &sums[n][2 * half];
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(pair[0] * factor, pair[1] * factor);
      }
    }
  }

  __device__ void load_rows() {
    if constexpr (kOfKeys) {
      copy<kRows>(args.rounded_k, true, blockIdx.y, first_row, 0);
      copy<kRows>(args.rounded_v, true, blockIdx.y, first_row, kOwnBytes);
    } else {
      copy<kRows>(args.rounded_q, false, blockIdx.y, first_row, 0);
      copy<kRows>(args.rounded_dy, false, blockIdx.y, first_row, kOwnBytes);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int query = min(first_row + row_of(half), place.n_queries - 1);
        const int64_t from =
            static_cast<int64_t>(place.first_query + query) * args.places.n_heads + blockIdx.y;
        row_lse[half] = binary_lse(args.lse[from]);
        row_delta[half] = args.delta[from];
      }
    }
  }

  __device__ void run() {
    // Tiles of the others, for each query head.
    int begin = 0, end;
    if constexpr (kOfKeys) {
      begin = place.first_that_sees(first_row) / kOthers;
      end = (place.n_queries + kOthers - 1) / kOthers;
    } else {
      const int last = min(first_row + kRows, place.n_queries) - 1;
      end = (place.seen(last) + kOthers - 1) / kOthers;
    }
    const int end_head = kOfKeys ? head + group() : head + 1;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) sum1[n][i] = sum2[n][i] = 0.0f;
    }
    if (begin < end) {
      load_rows();
      fill(head, begin, 0);
      cp_async_commit();
      int tile = begin, stage = 0;
      while (head < end_head) {
        const bool is_last = tile + 1 == end;
        const int next_tile = is_last ? begin : tile + 1, next_head = head + is_last;
        cp_async_wait<0>();
        __syncthreads();
        // All warps have left the other stage.
        if (next_head < end_head) fill(next_head, next_tile, 1 - stage);
        cp_async_commit();
        visit(tile, stage);
        tile = next_tile;
        head = next_head;
        stage = 1 - stage;
      }
    }
    if constexpr (kOfKeys) {
      store(args.dk, args.kv_stride, sum1, kLn2);
      store(args.dv, args.kv_stride, sum2, 1.0f);
    } else {
      store(args.dq, args.q_stride, sum1, args.places.scale);
    }
  }
};

template <int kHeadDim, bool kOfKeys>
__device__ __forceinline__ void attention_bwd(const LladaAttentionBackwardArgs& args) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  const AttentionPlace place(args.places, blockIdx.z);
  const int n_rows = kOfKeys ? place.n_keys : place.n_queries;
  if (static_cast<int>(blockIdx.x) * LLADA_ATTENTION_BACKWARD_ROWS >= n_rows) return;
  AttentionGradient<kHeadDim, kOfKeys>(args, place, shared_memory).run();
}

}  // namespace llada
