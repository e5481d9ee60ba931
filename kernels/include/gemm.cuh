// Tiles of matrix products, for the kernels of gemm.cu and moe.cu; see the head of gemm.cu.
#pragma once

#include "llada_kernels.h"
#include "mma.cuh"

namespace llada {

// Which tile of c a block makes: bands of up to 8 tiles of rows, columns ascending in a band.
struct TileIndex {
  int row, column;
};

__device__ __forceinline__ TileIndex tile_of_block(int m, int n, int tile_m, int tile_n) {
  constexpr int kBand = 8;
  const int n_rows = (m + tile_m - 1) / tile_m, n_columns = (n + tile_n - 1) / tile_n;
  const int block = static_cast<int>(blockIdx.x);
  const int band = block / (kBand * n_columns), in_band = block % (kBand * n_columns);
  const int first = band * kBand;
  const int height = min(kBand, n_rows - first);
  return {(first + in_band % height) * tile_m, in_band / height * tile_n};
}

// What becomes of c, as a type.
template <int kKind>
struct Kind {};

// Where a block writes.
struct Output {
  void* c;
  const float* scales;
  int64_t first, row_stride;
  int m, n, kind;

  __device__ explicit Output(const LladaGemmArgs& args)
      : c(args.c),
        scales(args.column_scales),
        first(static_cast<int64_t>(blockIdx.z) * args.c_batch_stride),
        row_stride(args.c_row_stride),
        m(args.m),
        n(args.n),
        kind(args.output) {}

  // Calls `body` with the kind as a constant.
  template <typename Body>
  __device__ __forceinline__ void with_kind(const Body& body) const {
    if (kind == LLADA_GEMM_REPLACE_BF16) {
      body(Kind<LLADA_GEMM_REPLACE_BF16>());
    } else if (kind == LLADA_GEMM_ADD) {
      body(Kind<LLADA_GEMM_ADD>());
    } else {
      body(Kind<LLADA_GEMM_REPLACE>());
    }
  }

  // Whichever kind of `f32` it is.
  __device__ __forceinline__ void write_f32(int row, int column, float sum) const {
    if (row >= m || column >= n) return;
    float* target = static_cast<float*>(c) + first + row * row_stride + column;
    if (scales != nullptr) sum *= scales[column];
    *target = kind == LLADA_GEMM_ADD ? *target + sum : sum;
  }

  template <int kKind>
  __device__ __forceinline__ void write(Kind<kKind>, int row, int column, float sum) const {
    if (row >= m || column >= n) return;
    const int64_t at = first + row * row_stride + column;
    if (scales != nullptr) sum *= scales[column];
    if constexpr (kKind == LLADA_GEMM_REPLACE_BF16) {
      static_cast<__nv_bfloat16*>(c)[at] = __float2bfloat16_rn(sum);
    } else {
      float* target = static_cast<float*>(c) + at;
      *target = kKind == LLADA_GEMM_ADD ? *target + sum : sum;
    }
  }
};

// ---- f32 ------------------------------------------------------------------------------------

constexpr int kF32TileM = LLADA_GEMM_F32_TILE_M, kF32TileN = LLADA_GEMM_F32_TILE_N;
constexpr int kF32TileK = 16, kF32Threads = LLADA_GEMM_F32_THREADS;
// Rows of shared memory are k, with room after each to spread writes along k over the banks.
constexpr int kF32PitchM = kF32TileM + 4, kF32PitchN = kF32TileN + 4;

// A thread's share of a tile [ROWS, 16] of an operand, where a row is a row of a or a column of b.
// Neighboring threads read along the axis with the smaller stride.
template <int ROWS, typename T>
struct F32Loader {
  static constexpr int kPerThread = ROWS * kF32TileK / kF32Threads;
  static constexpr int kPitch = ROWS + 4;

  const T* source;  // this thread's first element of the tile to load next
  int64_t step;         // from one of its elements to the next
  int64_t tile_step;
  int row, k;  // position of the first element in the tile
  int row_step, k_step;
  int n_rows;  // rows of the tile that exist
  int k_left;  // k that exist from the tile to load next on

  __device__ F32Loader(const T* operand, int64_t row_stride, int64_t k_stride, int first_row,
                       int all_rows, int all_k) {
    const int thread = static_cast<int>(threadIdx.x);
    const bool along_k = k_stride <= row_stride;
    row = along_k ? thread / kF32TileK : thread % ROWS;
    k = along_k ? thread % kF32TileK : thread / ROWS;
    row_step = along_k ? kF32Threads / kF32TileK : 0;
    k_step = along_k ? 0 : kF32Threads / ROWS;
    step = row_step * row_stride + k_step * k_stride;
    tile_step = kF32TileK * k_stride;
    source = operand + (first_row + row) * row_stride + k * k_stride;
    n_rows = all_rows - first_row;
    k_left = all_k;
  }

  // Reads the next tile, with zeros outside of the operand.
  __device__ __forceinline__ void load(float (&values)[kPerThread]) {
#pragma unroll
    for (int i = 0; i < kPerThread; i++) {
      const bool exists = row + i * row_step < n_rows && k + i * k_step < k_left;
      values[i] = exists ? static_cast<float>(source[i * step]) : 0.0f;
    }
    source += tile_step;
    k_left -= kF32TileK;
  }

  __device__ __forceinline__ void store(float* shared, const float (&values)[kPerThread]) const {
#pragma unroll
    for (int i = 0; i < kPerThread; i++) {
      shared[(k + i * k_step) * kPitch + row + i * row_step] = values[i];
    }
  }
};

__device__ __forceinline__ void load_4(float* out, const float* shared) {
  const float4 x = *reinterpret_cast<const float4*>(shared);
  out[0] = x.x;
  out[1] = x.y;
  out[2] = x.z;
  out[3] = x.w;
}

// A tile of the product of operands of type T.
template <typename T>
__device__ __forceinline__ void gemm_f32(const LladaGemmArgs& args, TileIndex tile) {
  __shared__ __align__(16) float shared_a[2][kF32TileK * kF32PitchM];
  __shared__ __align__(16) float shared_b[2][kF32TileK * kF32PitchN];
  const int64_t batch = blockIdx.z;
  F32Loader<kF32TileM, T> left(static_cast<const T*>(args.a) + batch * args.a_batch_stride,
                               args.a_row_stride, args.a_column_stride, tile.row, args.m, args.k);
  F32Loader<kF32TileN, T> right(static_cast<const T*>(args.b) + batch * args.b_batch_stride,
                                args.b_column_stride, args.b_row_stride, tile.column, args.n,
                                args.k);

  // Rows 4 y + i and 64 + 4 y + i, columns 4 x + j and 32 + 4 x + j.
  const int x = threadIdx.x % 8, y = threadIdx.x / 8;
  float sums[8][8] = {};
  float next_a[F32Loader<kF32TileM, T>::kPerThread], next_b[F32Loader<kF32TileN, T>::kPerThread];
  const int n_tiles = (args.k + kF32TileK - 1) / kF32TileK;
  if (n_tiles > 0) {
    left.load(next_a);
    right.load(next_b);
    left.store(shared_a[0], next_a);
    right.store(shared_b[0], next_b);
  }
  for (int i = 0; i < n_tiles; i++) {
    // The tile is complete, and all have finished the one that the next is stored over.
    __syncthreads();
    const bool more = i + 1 < n_tiles;
    if (more) {
      left.load(next_a);
      right.load(next_b);
    }
    const float* a_tile = shared_a[i % 2] + 4 * y;
    const float* b_tile = shared_b[i % 2] + 4 * x;
#pragma unroll
    for (int k = 0; k < kF32TileK; k++) {
      float a[8], b[8];
      load_4(a, a_tile + k * kF32PitchM);
      load_4(a + 4, a_tile + k * kF32PitchM + kF32TileM / 2);
      load_4(b, b_tile + k * kF32PitchN);
      load_4(b + 4, b_tile + k * kF32PitchN + kF32TileN / 2);
#pragma unroll
      for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int c = 0; c < 8; c++) sums[r][c] = fmaf(a[r], b[c], sums[r][c]);
      }
    }
    if (more) {
      left.store(shared_a[(i + 1) % 2], next_a);
      right.store(shared_b[(i + 1) % 2], next_b);
    }
  }

  const Output out(args);
#pragma unroll
  for (int r = 0; r < 8; r++) {
    const int row = tile.row + r / 4 * (kF32TileM / 2) + 4 * y + r % 4;
#pragma unroll
    for (int c = 0; c < 8; c++) {
      out.write_f32(row, tile.column + c / 4 * (kF32TileN / 2) + 4 * x + c % 4, sums[r][c]);
    }
  }
}

// ---- bf16 -----------------------------------------------------------------------------------

constexpr int kTileK = 32;            // k of a stage
constexpr int kChunk = 8;             // elements of 16 bytes, what cp.async and ldmatrix move
constexpr int kChunks = kTileK / kChunk;

// Element offset of a chunk in a tile [rows, 32].
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * kTileK + (chunk ^ (row / 2 % kChunks)) * kChunk;
}

// TILE x TILE elements of c by WARPS_M x WARPS_N warps.
template <int TILE, int WARPS_M, int WARPS_N, int STAGES>
struct Bf16Gemm {
  static constexpr int kThreads = 32 * WARPS_M * WARPS_N;
  static constexpr int kWarpM = TILE / WARPS_M, kWarpN = TILE / WARPS_N;
  static constexpr int kMmaM = kWarpM / 16, kMmaN = kWarpN / 8;
  static constexpr int kOperand = TILE * kTileK;  // elements of a tile of one operand
  static_assert(kMmaN % 2 == 0, "one ldmatrix_x4 brings two columns of b");
  static_assert(TILE * kChunks % kThreads == 0, "all threads copy the same number of chunks");

  // Starts copying rows first..first + TILE, k0..k0 + 32 of an operand [rows, k]; zeros outside.
  // kWhole: k is a multiple of 8, so that all chunks are whole.
  template <bool kWhole>
  static __device__ __forceinline__ void load(__nv_bfloat16* target, const __nv_bfloat16* operand,
                                              int64_t row_stride, int first, int rows, int k0,
                                              int k) {
    static_assert(kThreads % kChunks == 0, "all chunks of a thread have the same k");
    const int chunk = threadIdx.x % kChunks, column = k0 + chunk * kChunk;
    const int elements = kWhole ? kChunk : min(kChunk, k - column);
    const int bytes = elements * static_cast<int>(sizeof(*operand));
#pragma unroll
    for (int i = 0; i < TILE * kChunks / kThreads; i++) {
      const int row = static_cast<int>(threadIdx.x) / kChunks + i * (kThreads / kChunks);
      const bool exists = first + row < rows && column < k;
      const __nv_bfloat16* source = operand + (first + row) * row_stride + column;
      cp_async_first(target + swizzled(row, chunk), exists ? source : operand, exists ? bytes : 0);
    }
  }

  // Adds the product of one stage.
  static __device__ __forceinline__ void multiply(float (&sums)[kMmaM][kMmaN][4],
                                                  const __nv_bfloat16* a, const __nv_bfloat16* b) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / WARPS_N * kWarpM, warp_column = warp % WARPS_N * kWarpN;
#pragma unroll
    for (int step = 0; step < kTileK / 16; step++) {
      uint32_t left[kMmaM][4], right[kMmaN / 2][4];
#pragma unroll
      for (int i = 0; i < kMmaM; i++) {
        // Matrices: rows 0-7 and 8-15 of the lower eight k, then of the upper eight.
        ldmatrix_x4(left[i], a + swizzled(warp_row + 16 * i + lane % 16, 2 * step + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < kMmaN / 2; j++) {
        // Matrices: lower and upper eight k of columns 0-7, then of columns 8-15.
        const int column = warp_column + 16 * j + lane / 16 * 8 + lane % 8;
        ldmatrix_x4(right[j], b + swizzled(column, 2 * step + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < kMmaM; i++) {
#pragma unroll
        for (int j = 0; j < kMmaN; j++) {
          mma_16816(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  using Stages = __nv_bfloat16 (&)[STAGES][2][kOperand];
  using Sums = float (&)[kMmaM][kMmaN][4];

  static __device__ __forceinline__ void run(const LladaGemmArgs& args, TileIndex tile) {
    __shared__ __align__(128) __nv_bfloat16 stages[STAGES][2][kOperand];
    float sums[kMmaM][kMmaN][4] = {};
    if (args.k % kChunk == 0) {
      multiply_all<true>(args, tile, stages, sums);
    } else {
      multiply_all<false>(args, tile, stages, sums);
    }
    const Output out(args);
    out.with_kind([&](auto kind) { write(kind, out, tile, sums); });
  }

  template <bool kWhole>
  static __device__ __forceinline__ void multiply_all(const LladaGemmArgs& args, TileIndex tile,
                                                      Stages stages, Sums sums) {
    const int64_t batch = blockIdx.z;
    const __nv_bfloat16* a =
        static_cast<const __nv_bfloat16*>(args.a) + batch * args.a_batch_stride;
    const __nv_bfloat16* b =
        static_cast<const __nv_bfloat16*>(args.b) + batch * args.b_batch_stride;
    const int n_tiles = (args.k + kTileK - 1) / kTileK;
    // A group of copies per stage, empty after the last: so the waits below count right.
    const auto load_stage = [&](int i) {
      if (i < n_tiles) {
        const int k0 = i * kTileK;
        load<kWhole>(stages[i % STAGES][0], a, args.a_row_stride, tile.row, args.m, k0, args.k);
        load<kWhole>(stages[i % STAGES][1], b, args.b_column_stride, tile.column, args.n, k0,
                     args.k);
      }
      cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) load_stage(i);
    for (int i = 0; i < n_tiles; i++) {
      cp_async_wait<STAGES - 2>();
      // All copies of stage i have landed, and all warps have finished stage i - 1, whose place
      // the next copies take.
      __syncthreads();
      load_stage(i + STAGES - 1);
      multiply(sums, stages[i % STAGES][0], stages[i % STAGES][1]);
    }
    cp_async_wait<0>();
  }

  template <int kKind>
  static __device__ __forceinline__ void write(Kind<kKind> kind, const Output& out,
                                               TileIndex tile,
                                               const float (&sums)[kMmaM][kMmaN][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_row = tile.row + warp / WARPS_N * kWarpM + lane / 4;
    const int first_column = tile.column + warp % WARPS_N * kWarpN + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kMmaM; i++) {
#pragma unroll
      for (int j = 0; j < kMmaN; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int row = first_row + 16 * i + e / 2 * 8, column = first_column + 8 * j + e % 2;
          out.write(kind, row, column, sums[i][j][e]);
        }
      }
    }
  }
};

using Bf16GemmLarge = Bf16Gemm<LLADA_GEMM_BF16_TILE, 2, 4, 3>;
using Bf16GemmSmall = Bf16Gemm<LLADA_GEMM_BF16_SMALL_TILE, 2, 2, 4>;
static_assert(Bf16GemmLarge::kThreads == LLADA_GEMM_BF16_THREADS, "the launch plan's block");
static_assert(Bf16GemmSmall::kThreads == LLADA_GEMM_BF16_SMALL_THREADS, "the launch plan's block");

}  // namespace llada
