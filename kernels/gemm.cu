// Matrix products: c[i, m, n] (+)= scale[n] sum_k a[i, m, k] b[i, k, n], f32 sums, which may be
// rounded to bf16.
//
// Three kernels multiply, two round operands to bf16 for them, one transposes rounded operands, and
// one applies scales to a product of cuBLASLt, which has none of its own.
// - `llada_gemm_fwd_f32`: f32 operands with any strides. A block makes 128 x 64 elements of c from
//   tiles of 16 k in shared memory; a thread makes 8 x 8, as two by two pieces of 4 x 4 so that its
//   16-byte reads of shared memory meet no conflicts. While a tile is multiplied the next one is
//   on its way to registers. Each element is one chain of fused multiply-adds in the order of k.
// - `llada_gemm_fwd_bf16`: 128 x 128 elements per block of 8 warps, 64 x 32 per warp, by
//   mma.sync m16n8k16. a is [M, K] and b is [N, K], both with k inside (a_column_stride and
//   b_row_stride are 1), 16-byte aligned with row strides that are multiples of 8. Tiles of 32 k
//   come by cp.async into a ring of three stages of 16 KiB: 48 KiB, so that two blocks fit
//   the 100 KiB of consumer cards.
// - `llada_gemm_small_fwd_bf16`: the same with 64 x 64 elements per block of 4 warps, for products
//   whose grid of 128 x 128 would leave multiprocessors idle.
//
// Shared memory of the bf16 kernels: rows of 32 elements are four chunks of 16 bytes; chunk c of
// row r lies at c ^ (r / 2 % 4), which spreads the eight rows that ldmatrix reads over all banks.
// Accumulation: f32, k ascending in steps of 16, whatever the tile: results are the same for both
// tile sizes, for any other rows, and for any number of columns.
// Work: 2 M N K FLOPs; at least (M K + K N) operand bytes and 4 M N output bytes.
// Deterministic. Blocks go through c in bands of 8 tiles of rows, so that the operands of blocks
// that run together stay in the second-level cache.

#include "gemm.cuh"

namespace llada {

// ---- rounding to bf16 -----------------------------------------------------------------------

// A thread rounds eight columns of a row at a time.
__device__ __forceinline__ void cast_rows(const LladaCastArgs& args) {
  constexpr int kWidth = 8;
  const int64_t per_row = args.y_columns / kWidth;
  const int64_t total = args.batch * args.rows * per_row;
  // Whether every row starts on a boundary of 16 bytes.
  const bool aligned = (reinterpret_cast<uintptr_t>(args.x) % 16 | args.x_row_stride % 4 |
                        args.x_batch_stride % 4) == 0;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < total;
       at += threads) {
    const int64_t row = at / per_row;
    const int column = static_cast<int>(at % per_row) * kWidth;
    const float* source = static_cast<const float*>(args.x) + row / args.rows * args.x_batch_stride +
                          row % args.rows * args.x_row_stride + column;
    float values[kWidth];
    if (aligned && column + kWidth <= args.columns) {
      load_4(values, source);
      load_4(values + 4, source + 4);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; i++) values[i] = column + i < args.columns ? source[i] : 0.0f;
    }
    uint4 packed;
    packed.x = pack_pair(values[0], values[1]);
    packed.y = pack_pair(values[2], values[3]);
    packed.z = pack_pair(values[4], values[5]);
    packed.w = pack_pair(values[6], values[7]);
    *reinterpret_cast<uint4*>(args.y + at * kWidth) = packed;
  }
}

__device__ __forceinline__ __nv_bfloat16 rounded(float x) { return __float2bfloat16_rn(x); }
__device__ __forceinline__ __nv_bfloat16 rounded(__nv_bfloat16 x) { return x; }

// A block rounds 32 x 32 elements of type T: it reads them along rows and writes them along columns.
template <typename T>
__device__ __forceinline__ void cast_tile(const LladaCastArgs& args) {
  constexpr int kTile = LLADA_CAST_TILE, kStep = LLADA_CAST_THREADS / kTile;
  // One more column spreads reads along rows over the banks.
  __shared__ T tile[kTile][kTile + 1];
  const int lane = threadIdx.x % kTile, first = threadIdx.x / kTile;
  const int n_across = (args.y_columns + kTile - 1) / kTile;
  const int row0 = static_cast<int>(blockIdx.x) / n_across * kTile;
  const int column0 = static_cast<int>(blockIdx.x) % n_across * kTile;
  const int64_t batch = blockIdx.z;
  const T* x = static_cast<const T*>(args.x) + batch * args.x_batch_stride;
  for (int i = first; i < kTile; i += kStep) {
    const int row = row0 + lane, column = column0 + i;
    const bool exists = row < args.rows && column < args.columns;
    tile[i][lane] = exists ? x[row * args.x_row_stride + column * args.x_column_stride] : T(0.0f);
  }
  __syncthreads();
  __nv_bfloat16* y = reinterpret_cast<__nv_bfloat16*>(args.y) +
                     batch * args.rows * static_cast<int64_t>(args.y_columns);
  for (int i = first; i < kTile; i += kStep) {
    const int row = row0 + i, column = column0 + lane;
    if (row < args.rows && column < args.y_columns) {
      y[row * static_cast<int64_t>(args.y_columns) + column] = rounded(tile[lane][i]);
    }
  }
}

__device__ __forceinline__ void scale_columns(const LladaScaleColumnsArgs& args) {
  const int64_t total = static_cast<int64_t>(args.rows) * args.columns;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < total;
       at += threads) {
    const int64_t row = at / args.columns;
    const int column = static_cast<int>(at % args.columns);
    const float value = args.x[row * args.x_row_stride + column] * args.scales[column];
    float* y = args.y + row * args.y_row_stride + column;
    *y = args.accumulate != 0 ? *y + value : value;
  }
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_F32_THREADS, 2)
    llada_gemm_fwd_f32(const LladaGemmArgs args) {
  llada::gemm_f32<float>(args, llada::tile_of_block(args.m, args.n, LLADA_GEMM_F32_TILE_M,
                                                    LLADA_GEMM_F32_TILE_N));
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_BF16_THREADS, 2)
    llada_gemm_fwd_bf16(const LladaGemmArgs args) {
  constexpr int kTile = LLADA_GEMM_BF16_TILE;
  llada::Bf16GemmLarge::run(args, llada::tile_of_block(args.m, args.n, kTile, kTile));
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_BF16_SMALL_THREADS, 4)
    llada_gemm_small_fwd_bf16(const LladaGemmArgs args) {
  constexpr int kTile = LLADA_GEMM_BF16_SMALL_TILE;
  llada::Bf16GemmSmall::run(args, llada::tile_of_block(args.m, args.n, kTile, kTile));
}

extern "C" __global__ void __launch_bounds__(LLADA_CAST_THREADS)
    llada_cast_rows_fwd_bf16(const LladaCastArgs args) {
  llada::cast_rows(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_CAST_THREADS)
    llada_cast_tile_fwd_bf16(const LladaCastArgs args) {
  llada::cast_tile<float>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_CAST_THREADS)
    llada_transpose_tile_fwd_bf16(const LladaCastArgs args) {
  llada::cast_tile<__nv_bfloat16>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_CAST_THREADS)
    llada_scale_columns_fwd_f32(const LladaScaleColumnsArgs args) {
  llada::scale_columns(args);
}
