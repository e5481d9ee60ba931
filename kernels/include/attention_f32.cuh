// Attention and its gradient in f32, for head dimensions up to 64 kChunks.
//
// A block of eight warps computes a tile of 64 rows: queries, or keys for the gradients of keys and
// values. It visits tiles of 64 columns of the other kind. Everything is made of two products on
// tiles of 64 by 64 in shared memory, `left` and `right`, for which the head dimension comes in
// chunks of 64:
//
//   products of rows:  s[i][j] += sum_e left[i][e] right[j][e]     (scores, dY V^T)
//   sums of rows:      sum[i][e] += sum_j left[i][j] right[j][e]   (P V, dS K, P^T dY, dS^T Q)
//
// A warp owns 8 rows, so that what it computes of them and writes to `left` is its own affair. A
// lane owns rows 4 (lane / 16) + a of them, with columns lane % 16 + 16 b of s, and columns
// 4 (lane % 16) + c of a chunk of a sum. Rows are 68 floats apart, so that the 16-byte reads of
// eight lanes, of eight rows or of one, meet each bank once.
#pragma once

#include <stdint.h>

#include "attention.cuh"
#include "reduce.cuh"

namespace llada {

constexpr int kTile = LLADA_ATTENTION_F32_TILE;
constexpr int kTileStride = kTile + 4;
using Tile = float[kTile][kTileStride];

// A head of the tokens of one sequence.
struct HeadRows {
  const float* data;
  int stride;
  int n_rows;
  int head_dim;
  float factor;  // of everything that is read

  __device__ HeadRows(const float* matrix, int64_t stride, int first, int n_rows, int head,
                      int head_dim, float factor = 1.0f)
      : data(matrix + first * stride + static_cast<int64_t>(head) * head_dim),
        stride(static_cast<int>(stride)),
        n_rows(n_rows),
        head_dim(head_dim),
        factor(factor) {}

  // Rows first .. first + 64 and columns 64 chunk .. 64 (chunk + 1), zeros outside.
  __device__ void load(Tile& tile, int first, int chunk) const {
    const int at = threadIdx.x % 16 * 4, column = chunk * kTile + at;
    const bool is_aligned = head_dim % 4 == 0 && stride % 4 == 0 &&
                            reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0;
#pragma unroll 2
    for (int i = threadIdx.x / 16; i < kTile; i += LLADA_ATTENTION_F32_THREADS / 16) {
      float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (first + i < n_rows) {
        const float* row = data + static_cast<int64_t>(first + i) * stride + column;
        if (is_aligned) {
          if (column < head_dim) x = *reinterpret_cast<const float4*>(row);
        } else {
          if (column < head_dim) x.x = row[0];
          if (column + 1 < head_dim) x.y = row[1];
          if (column + 2 < head_dim) x.z = row[2];
          if (column + 3 < head_dim) x.w = row[3];
        }
      }
      x = make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
      *reinterpret_cast<float4*>(&tile[i][at]) = x;
    }
  }

  // Columns of a chunk, rounded up to whole groups of four.
  __device__ int columns(int chunk) const { return min(head_dim - chunk * kTile + 3, kTile) & ~3; }
};

// The work of one thread on a tile.
template <int kChunks>
struct TileWork {
  Tile& left;
  Tile& right;

  static __device__ int row(int a) {
    return threadIdx.x / 32 * 8 + threadIdx.x % 32 / 16 * 4 + a;
  }
  static __device__ int column(int b) { return threadIdx.x % 16 + 16 * b; }

  // s = x y^T for 64 rows of each.
  __device__ void products(float (&s)[4][4], const HeadRows& x, int x_first, const HeadRows& y,
                           int y_first) {
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
      for (int b = 0; b < 4; b++) s[a][b] = 0.0f;
    }
    for (int chunk = 0; chunk * kTile < x.head_dim; chunk++) {
      __syncthreads();
      x.load(left, x_first, chunk);
      y.load(right, y_first, chunk);
      __syncthreads();
      const int columns = x.columns(chunk);
#pragma unroll 1
      for (int e = 0; e < columns; e += 4) {
        float4 y4[4];
#pragma unroll
        for (int b = 0; b < 4; b++) y4[b] = *reinterpret_cast<float4*>(&right[column(b)][e]);
#pragma unroll
        for (int a = 0; a < 4; a++) {
          const float4 x4 = *reinterpret_cast<float4*>(&left[row(a)][e]);
#pragma unroll
          for (int b = 0; b < 4; b++) {
            s[a][b] = fmaf(x4.x, y4[b].x, s[a][b]);
            s[a][b] = fmaf(x4.y, y4[b].y, s[a][b]);
            s[a][b] = fmaf(x4.z, y4[b].z, s[a][b]);
            s[a][b] = fmaf(x4.w, y4[b].w, s[a][b]);
          }
        }
      }
    }
    // The next one who writes to `left` must not disturb those who still read.
    __syncthreads();
  }

  // sums += s x for 64 rows of x.
  __device__ void sum_rows(float (&sums)[kChunks][4][4], const float (&s)[4][4], const HeadRows& x,
                           int x_first) {
    // The warp may still read its rows of `left` for the sums before.
    __syncwarp();
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
      for (int b = 0; b < 4; b++) left[row(a)][column(b)] = s[a][b];
    }
    __syncwarp();
    const int n_rows = min(x.n_rows - x_first + 3, kTile) & ~3;
    const int first_column = threadIdx.x % 16 * 4;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; chunk++) {
      if (chunk * kTile >= x.head_dim) break;
      __syncthreads();
      x.load(right, x_first, chunk);
      __syncthreads();
#pragma unroll 1
      for (int j = 0; j < n_rows; j += 4) {
        float4 x4[4];
#pragma unroll
        for (int i = 0; i < 4; i++) x4[i] = *reinterpret_cast<float4*>(&right[j + i][first_column]);
#pragma unroll
        for (int a = 0; a < 4; a++) {
          const float4 s4 = *reinterpret_cast<float4*>(&left[row(a)][j]);
          add_product(sums[chunk][a], s4.x, x4[0]);
          add_product(sums[chunk][a], s4.y, x4[1]);
          add_product(sums[chunk][a], s4.z, x4[2]);
          add_product(sums[chunk][a], s4.w, x4[3]);
        }
      }
    }
  }

  static __device__ void add_product(float (&sum)[4], float x, const float4& y) {
    sum[0] = fmaf(x, y.x, sum[0]);
    sum[1] = fmaf(x, y.y, sum[1]);
    sum[2] = fmaf(x, y.z, sum[2]);
    sum[3] = fmaf(x, y.w, sum[3]);
  }

  // Writes 64 rows of a head, row a multiplied by factors[a].
  static __device__ void store(float* matrix, int64_t stride, int first_token, int first,
                               int n_rows, int head, int head_dim,
                               const float (&sums)[kChunks][4][4], const float (&factors)[4]) {
#pragma unroll
    for (int a = 0; a < 4; a++) {
      if (first + row(a) >= n_rows) continue;
      float* to = matrix + (first_token + first + row(a)) * stride +
                  static_cast<int64_t>(head) * head_dim;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; chunk++) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
          const int at = chunk * kTile + threadIdx.x % 16 * 4 + c;
          if (at < head_dim) to[at] = sums[chunk][a][c] * factors[a];
        }
      }
    }
  }
};

template <int kChunks>
__device__ __forceinline__ void clear(float (&sums)[kChunks][4][4]) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; chunk++) {
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
      for (int c = 0; c < 4; c++) sums[chunk][a][c] = 0.0f;
    }
  }
}

// The result is in each of the 16 lanes that share rows.
template <typename Op>
__device__ __forceinline__ float reduce_row(float x) {
#pragma unroll
  for (int distance = 8; distance > 0; distance /= 2) {
    x = Op::apply(x, __shfl_xor_sync(kFullWarp, x, distance));
  }
  return x;
}

// One tile of queries of one head of one sequence, with an online softmax.
template <int kChunks>
__device__ __forceinline__ void attention_fwd_f32(const LladaAttentionArgs& args) {
  __shared__ Tile left, right;
  const AttentionPlace place(args.places, blockIdx.z);
  const int n_heads = args.places.n_heads, n_kv_heads = args.places.n_kv_heads;
  const int head_dim = args.places.head_dim, head = blockIdx.y;
  const int kv_head = head / (n_heads / n_kv_heads), first = blockIdx.x * kTile;
  if (first >= place.n_queries) return;
  const HeadRows q(static_cast<const float*>(args.q), args.q_stride, place.first_query,
                   place.n_queries, head, head_dim, args.places.scale);
  const HeadRows k(static_cast<const float*>(args.k), args.kv_stride, place.first_key,
                   place.n_keys, kv_head, head_dim);
  const HeadRows v(static_cast<const float*>(args.v), args.kv_stride, place.first_key,
                   place.n_keys, kv_head, head_dim);
  using Work = TileWork<kChunks>;
  Work work{left, right};

  float out[kChunks][4][4], row_max[4], row_sum[4];
  // Of each row: a quotient, which the loop must not compute anew.
  int seen[4];
  clear(out);
#pragma unroll
  for (int a = 0; a < 4; a++) {
    seen[a] = place.seen(first + Work::row(a));
    row_max[a] = -CUDART_INF_F;
    row_sum[a] = 0.0f;
  }
  const int end = place.seen(min(first + kTile, place.n_queries) - 1);
  for (int first_key = 0; first_key < end; first_key += kTile) {
    float s[4][4];
    work.products(s, q, first, k, first_key);
#pragma unroll
    for (int a = 0; a < 4; a++) {
      float max = row_max[a];
#pragma unroll
      for (int b = 0; b < 4; b++) {
        if (first_key + Work::column(b) >= seen[a]) s[a][b] = -CUDART_INF_F;
        max = fmaxf(max, s[a][b]);
      }
      max = reduce_row<Max>(max);
      // A row that has seen no key yet must not subtract infinities.
      const float shift = max == -CUDART_INF_F ? 0.0f : max;
      const float correction = expf(row_max[a] - shift);
      float sum = 0.0f;
#pragma unroll
      for (int b = 0; b < 4; b++) {
        s[a][b] = expf(s[a][b] - shift);
        sum += s[a][b];
      }
      row_max[a] = max;
      row_sum[a] = row_sum[a] * correction + sum;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; chunk++) {
#pragma unroll
        for (int c = 0; c < 4; c++) out[chunk][a][c] *= correction;
      }
    }
    work.sum_rows(out, s, v, first_key);
  }

  float factors[4];
#pragma unroll
  for (int a = 0; a < 4; a++) {
    const float sum = reduce_row<Sum>(row_sum[a]);
    // A query that sees no key has no output.
    factors[a] = sum > 0.0f ? 1.0f / sum : 0.0f;
    const int query = first + Work::row(a);
    if (query < place.n_queries && threadIdx.x % 16 == 0) {
      const float lse = sum > 0.0f ? row_max[a] + logf(sum) : -CUDART_INF_F;
      args.lse[static_cast<int64_t>(place.first_query + query) * n_heads + head] = lse;
    }
  }
  Work::store(static_cast<float*>(args.y), args.q_stride, place.first_query, first,
              place.n_queries, head, head_dim, out, factors);
}

// delta = rowsum(dy * y), a warp per token and head.
__device__ __forceinline__ void attention_delta(const LladaAttentionBackwardArgs& args) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (row >= args.rows) return;
  const int head_dim = args.places.head_dim, n_heads = args.places.n_heads;
  const int64_t at = row / n_heads * args.q_stride + row % n_heads * head_dim;
  float sum = 0.0f;
  for (int e = threadIdx.x % 32; e < head_dim; e += 32) {
    const float y = args.y_is_bf16 != 0
                        ? __bfloat162float(static_cast<const __nv_bfloat16*>(args.y)[at + e])
                        : static_cast<const float*>(args.y)[at + e];
    sum = fmaf(args.dy[at + e], y, sum);
  }
  sum = warp_reduce<Sum>(sum);
  if (threadIdx.x % 32 == 0) args.delta[row] = sum;
}

// What both kernels of the gradient read. Queries are multiplied by the scale.
struct BackwardHead {
  HeadRows q, k, v, dy;

  __device__ BackwardHead(const LladaAttentionBackwardArgs& args, const AttentionPlace& place,
                          int head)
      : q(args.q, args.q_stride, place.first_query, place.n_queries, head, args.places.head_dim,
          args.places.scale),
        k(args.k, args.kv_stride, place.first_key, place.n_keys, kv_head(args, head),
          args.places.head_dim),
        v(args.v, args.kv_stride, place.first_key, place.n_keys, kv_head(args, head),
          args.places.head_dim),
        dy(args.dy, args.q_stride, place.first_query, place.n_queries, head,
           args.places.head_dim) {}

  static __device__ int kv_head(const LladaAttentionBackwardArgs& args, int head) {
    return head / (args.places.n_heads / args.places.n_kv_heads);
  }
};

// What a tile of queries brings to its gradients, in shared memory. The first barrier of the next
// product shows it to all threads.
struct TileStates {
  float lse[kTile];
  float delta[kTile];
  int seen[kTile];

  __device__ void load_queries(const LladaAttentionBackwardArgs& args,
                               const AttentionPlace& place, int head, int first) {
    if (threadIdx.x >= kTile) return;
    const int query = first + threadIdx.x;
    const bool is_query = query < place.n_queries;
    const int64_t at =
        static_cast<int64_t>(place.first_query + query) * args.places.n_heads + head;
    lse[threadIdx.x] = is_query ? args.lse[at] : 0.0f;
    delta[threadIdx.x] = is_query ? args.delta[at] : 0.0f;
    seen[threadIdx.x] = is_query ? place.seen(query) : 0;
    // A query without keys has no gradient.
    if (lse[threadIdx.x] == -CUDART_INF_F) seen[threadIdx.x] = 0;
  }

  // Turns the score of a query and a key, by their places in the tiles, into p = exp(score - lse)
  // and dY V^T into p (dp - delta).
  __device__ void slopes(float& p, float& ds, int query, int key, int first_key) const {
    const bool is_seen = first_key + key < seen[query];
    p = is_seen ? expf(p - lse[query]) : 0.0f;
    ds = is_seen ? p * (ds - delta[query]) : 0.0f;
  }
};

// dQ of one tile of queries of one head.
template <int kChunks>
__device__ __forceinline__ void attention_dq_f32(const LladaAttentionBackwardArgs& args) {
  __shared__ Tile left, right;
  __shared__ TileStates states;
  const AttentionPlace place(args.places, blockIdx.z);
  const int head = blockIdx.y, first = blockIdx.x * kTile;
  if (first >= place.n_queries) return;
  const BackwardHead in(args, place, head);
  using Work = TileWork<kChunks>;
  Work work{left, right};

  float dq[kChunks][4][4];
  clear(dq);
  states.load_queries(args, place, head, first);
  const int end = place.seen(min(first + kTile, place.n_queries) - 1);
  for (int first_key = 0; first_key < end; first_key += kTile) {
    float p[4][4], ds[4][4];
    work.products(p, in.q, first, in.k, first_key);
    work.products(ds, in.dy, first, in.v, first_key);
#pragma unroll
    for (int a = 0; a < 4; a++) {
#pragma unroll
      for (int b = 0; b < 4; b++) {
        states.slopes(p[a][b], ds[a][b], Work::row(a), Work::column(b), first_key);
      }
    }
    work.sum_rows(dq, ds, in.k, first_key);
  }
  const float scale = args.places.scale;
  const float factors[4] = {scale, scale, scale, scale};
  Work::store(args.dq, args.q_stride, place.first_query, first, place.n_queries, head,
              args.places.head_dim, dq, factors);
}

// dK and dV of one tile of keys of one key head, over all query heads that share it.
template <int kChunks>
__device__ __forceinline__ void attention_dkdv_f32(const LladaAttentionBackwardArgs& args) {
  __shared__ Tile left, right;
  __shared__ TileStates states;
  const AttentionPlace place(args.places, blockIdx.z);
  const int kv_head = blockIdx.y, first = blockIdx.x * kTile;
  if (first >= place.n_keys) return;
  const int group = args.places.n_heads / args.places.n_kv_heads;
  using Work = TileWork<kChunks>;
  Work work{left, right};

  float dk[kChunks][4][4], dv[kChunks][4][4];
  clear(dk);
  clear(dv);
  const int first_tile = place.first_that_sees(first) / kTile * kTile;
  for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
    const BackwardHead in(args, place, head);
    for (int first_query = first_tile; first_query < place.n_queries; first_query += kTile) {
      float p[4][4], ds[4][4];
      states.load_queries(args, place, head, first_query);
      work.products(p, in.k, first, in.q, first_query);
      work.products(ds, in.v, first, in.dy, first_query);
#pragma unroll
      for (int a = 0; a < 4; a++) {
#pragma unroll
        for (int b = 0; b < 4; b++) {
          states.slopes(p[a][b], ds[a][b], Work::column(b), Work::row(a), first);
        }
      }
      work.sum_rows(dv, p, in.dy, first_query);
      work.sum_rows(dk, ds, in.q, first_query);
    }
  }
  const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  Work::store(args.dk, args.kv_stride, place.first_key, first, place.n_keys, kv_head,
              args.places.head_dim, dk, ones);
  Work::store(args.dv, args.kv_stride, place.first_key, first, place.n_keys, kv_head,
              args.places.head_dim, dv, ones);
}

}  // namespace llada
