/* Launch interface of the kernels: an argument struct per op, and the constants that both sides
 * of a launch must agree on. Plain C, read by nvcc and, through bindgen, by Rust.
 *
 * Every entry is `extern "C" __global__ void llada_<op>_<fwd|bwd>_<dtype>(const Llada<Op>Args)`.
 * Device addresses are pointers on the device and integers in Rust. Strides and sizes are counted
 * in elements. All tensors are row-major.
 */
#ifndef LLADA_KERNELS_H
#define LLADA_KERNELS_H

#include <stdint.h>

#ifdef __CUDACC__
#define LLADA_PTR(type) type*
#else
#define LLADA_PTR(type) uint64_t
#endif

/* bfloat16 and half precision by their bits, for C. */
typedef uint16_t LladaBf16;
typedef uint16_t LladaF16;

/* ---- rms_norm.cu ------------------------------------------------------------------------- */

/* y[r, c] = x[r, c] weight[c] rstd[r], rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps). */
typedef struct LladaRmsNormArgs {
  LLADA_PTR(const float) x;      /* [rows, d] */
  LLADA_PTR(const float) weight; /* [d] */
  LLADA_PTR(float) y;            /* [rows, d] */
  LLADA_PTR(float) rstd;         /* [rows] */
  int64_t rows;
  int32_t d;
  float eps;
} LladaRmsNormArgs;

/* ---- gemm.cu ------------------------------------------------------------------------------ */

/* c[i, m, n] (+)= scale[n] sum_k a[i, m, k] b[i, k, n], and all scales are 1 if there are none.
 * A row of c has no gaps. */
typedef struct LladaGemmArgs {
  LLADA_PTR(const void) a; /* [batch, m, k], any strides */
  LLADA_PTR(const void) b; /* [batch, k, n], any strides */
  LLADA_PTR(float) c;      /* [batch, m, n] */
  LLADA_PTR(const float) column_scales; /* [n], or null */
  int64_t a_row_stride;
  int64_t a_column_stride;
  int64_t a_batch_stride;
  int64_t b_row_stride;
  int64_t b_column_stride;
  int64_t b_batch_stride;
  int64_t c_row_stride;
  int64_t c_batch_stride;
  int32_t m;
  int32_t n;
  int32_t k;
  int32_t accumulate; /* 0: replaces c, 1: adds to it */
} LladaGemmArgs;

/* y[i, r, c] = bf16(x[i, r, c]), and 0 for columns <= c < y_columns. */
typedef struct LladaCastArgs {
  LLADA_PTR(const float) x;   /* [batch, rows, columns], any strides */
  LLADA_PTR(LladaBf16) y;     /* [batch, rows, y_columns], contiguous */
  int64_t x_row_stride;
  int64_t x_column_stride;
  int64_t x_batch_stride;
  int64_t batch;
  int32_t rows;
  int32_t columns;
  int32_t y_columns; /* a multiple of 8 */
  int32_t padding;
} LladaCastArgs;

/* Rows and columns of c that a block of a gemm entry makes, and its threads. */
enum {
  LLADA_GEMM_F32_TILE_M = 128,
  LLADA_GEMM_F32_TILE_N = 64,
  LLADA_GEMM_F32_THREADS = 128,
  LLADA_GEMM_BF16_TILE = 128,
  LLADA_GEMM_BF16_THREADS = 256,
  LLADA_GEMM_BF16_SMALL_TILE = 64,
  LLADA_GEMM_BF16_SMALL_THREADS = 128,
  LLADA_CAST_ROWS_THREADS = 256,
  LLADA_CAST_TILE = 32,
  LLADA_CAST_TILE_THREADS = 256
};

/* ---- quantized.cu ------------------------------------------------------------------------- */

#endif
