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

/* y[r, c] (+)= scales[c] x[r, c]; y may be x. */
typedef struct LladaScaleColumnsArgs {
  LLADA_PTR(const float) x;      /* [rows, columns] */
  LLADA_PTR(const float) scales; /* [columns] */
  LLADA_PTR(float) y;            /* [rows, columns] */
  int64_t x_row_stride;
  int64_t y_row_stride;
  int32_t rows;
  int32_t columns;
  int32_t accumulate;
  int32_t padding;
} LladaScaleColumnsArgs;

/* Rows and columns of c that a block of a gemm entry makes, and its threads. */
#define LLADA_GEMM_F32_TILE_M 128
#define LLADA_GEMM_F32_TILE_N 64
#define LLADA_GEMM_F32_THREADS 128
#define LLADA_GEMM_BF16_TILE 128
#define LLADA_GEMM_BF16_THREADS 256
#define LLADA_GEMM_BF16_SMALL_TILE 64
#define LLADA_GEMM_BF16_SMALL_THREADS 128
/* Elements along both axes that a block of llada_cast_tile_fwd_bf16 rounds. */
#define LLADA_CAST_TILE 32
/* Threads of the other entries of gemm.cu. */
#define LLADA_CAST_THREADS 256

/* ---- quantized.cu ------------------------------------------------------------------------- */

/* A packed weight of n rows: a row is `steps` steps of 128 codes, the last ones zero; chunks of 16
 * bytes hold 16 8-bit codes or 32 4-bit ones, see quantized.cu for their order. */
typedef struct LladaPackedCodes {
  LLADA_PTR(uint8_t) codes;      /* [n, steps, 8 or 4 chunks] */
  LLADA_PTR(int8_t) multipliers; /* of 4-bit codes: [steps, padded_rows, 4] */
  int32_t steps;
  int32_t padded_rows; /* n rounded up to a multiple of 32 */
} LladaPackedCodes;

/* Puts rows of a weight into its packed form. */
typedef struct LladaPackCodesArgs {
  LLADA_PTR(const int8_t) codes;       /* [rows, k] */
  LLADA_PTR(const int8_t) multipliers; /* of 4-bit codes: [rows, k / 32] */
  LladaPackedCodes packed;
  int32_t first_row; /* of the weight */
  int32_t rows;
  int32_t k; /* a multiple of 64 */
  int32_t padding;
} LladaPackCodesArgs;

/* y = bf16(rotated x), 64 values at a time, zeros from k rounded up to 64 on. */
typedef struct LladaRotateArgs {
  LLADA_PTR(const float) x; /* [rows, k], any strides */
  LLADA_PTR(LladaBf16) y;   /* [rows, y_columns], contiguous */
  int64_t x_row_stride;
  int64_t x_column_stride;
  int32_t rows;
  int32_t k;
  int32_t y_columns; /* a multiple of 64, at least k */
  int32_t padding;
} LladaRotateArgs;

/* y[m, n] (+)= scales[n] sum_k weight[n, k] x[m, k] for up to 64 rows of x. */
typedef struct LladaQuantizedMatmulArgs {
  LLADA_PTR(const LladaBf16) x; /* [m, 128 steps] */
  LladaPackedCodes weight;
  LLADA_PTR(const float) scales; /* [n] */
  LLADA_PTR(float) y;            /* [m, n] */
  int64_t y_row_stride;
  int32_t m;
  int32_t n;
  int32_t accumulate;
  int32_t padding;
} LladaQuantizedMatmulArgs;

/* y[r, k] = weight[first_row + r, k] without its scale, exact in bf16. */
typedef struct LladaDequantizeArgs {
  LladaPackedCodes weight;
  LLADA_PTR(LladaBf16) y; /* [rows, 128 steps] */
  int32_t first_row;
  int32_t rows;
} LladaDequantizeArgs;

/* Codes of a step, and those that share a multiplier. */
#define LLADA_QUANTIZED_STEP 128
#define LLADA_QUANTIZED_GROUP 32
/* Rows of x and of the weight that a block of a quantized matmul takes, threads, shared memory. */
#define LLADA_QUANTIZED_MAX_M 64
#define LLADA_QUANTIZED_TILE_N 32
#define LLADA_QUANTIZED_THREADS 256
#define LLADA_QUANTIZED_INT8_SHARED 82944
#define LLADA_QUANTIZED_INT4_SHARED 76032

#endif
