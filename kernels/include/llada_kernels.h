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

/* ---- element-wise kernels ------------------------------------------------------------------ */

/* Threads of a block of add.cu, adamw.cu, embedding.cu, forward_process.cu, global_norm.cu and
 * swiglu.cu, and most of rope.cu: small, so that the last wave of blocks is short. With up to 48
 * registers per thread 5 blocks fit a multiprocessor, 20 KiB of loads in flight per operand. */
#define LLADA_ELEMENTWISE_THREADS 256

/* ---- add.cu ------------------------------------------------------------------------------ */

/* y[i] = x[i] + z[i]; y may be x or z. */
typedef struct LladaAddArgs {
  LLADA_PTR(const float) x; /* [n] */
  LLADA_PTR(const float) z; /* [n] */
  LLADA_PTR(float) y;       /* [n] */
  int64_t n;
} LladaAddArgs;

/* y[r, c] = x[r, c] + z[c]; y may be x. */
typedef struct LladaAddRowArgs {
  LLADA_PTR(const float) x; /* [rows, d] */
  LLADA_PTR(const float) z; /* [d] */
  LLADA_PTR(float) y;       /* [rows, d] */
  int64_t rows;
  int64_t d;
  int32_t lanes_log2; /* threads side by side in a row */
  int32_t padding;
} LladaAddRowArgs;

/* y[i] = a x[i] + b y[i]; y is not read if b is 0. */
typedef struct LladaAxpbyArgs {
  LLADA_PTR(const float) x; /* [n] */
  LLADA_PTR(float) y;       /* [n] */
  int64_t n;
  float a;
  float b;
} LladaAxpbyArgs;

/* y[k, c] = sum of x[r, c] over the rows r of chunk k, plus y[k, c] if it accumulates. */
typedef struct LladaColumnSumArgs {
  LLADA_PTR(const float) x; /* [rows, d] */
  LLADA_PTR(float) y;       /* [chunks, d] */
  int64_t rows;
  int64_t chunk_rows; /* rows of a chunk; the last one may have fewer */
  int64_t d;
  int32_t lanes_log2; /* threads side by side in a row */
  int32_t accumulate; /* 1: adds to y, 0: overwrites it */
} LladaColumnSumArgs;

/* ---- embedding.cu ------------------------------------------------------------------------ */

/* y[i, c] = table[ids[i], c]. */
typedef struct LladaEmbeddingArgs {
  LLADA_PTR(const void) table;   /* [vocabulary, d], f32 or bf16 by the entry */
  LLADA_PTR(const uint32_t) ids; /* [n] */
  LLADA_PTR(float) y;            /* [n, d] */
  int64_t n;
  int64_t d;
  int32_t lanes_log2; /* threads side by side in a row */
  int32_t padding;
} LladaEmbeddingArgs;

/* y[targets[s], c] = sum of x[order[k], c] over starts[s] <= k < starts[s + 1], in this order,
 * plus y[targets[s], c] if it accumulates. No two targets are the same. */
typedef struct LladaSegmentSumArgs {
  LLADA_PTR(const float) x;          /* [.., d] */
  LLADA_PTR(const uint32_t) order;   /* rows of x */
  LLADA_PTR(const uint32_t) starts;  /* [segments + 1] */
  LLADA_PTR(const uint32_t) targets; /* [segments] */
  LLADA_PTR(float) y;                /* [.., d] */
  int64_t segments;
  int64_t d;
  int32_t lanes_log2; /* threads side by side in a row */
  int32_t accumulate; /* 1: starts from y, 0: starts from 0 */
} LladaSegmentSumArgs;

/* ---- rms_norm.cu ------------------------------------------------------------------------- */

/* Most threads of a block, and elements of a row that a thread keeps in registers. Of blocks of
 * 1,024 threads each has 64 registers, enough for the 16 values of the forward kernel; the 48 of
 * the backward kernel need more. Rows are kept whole up to 16,384 and 8,192 columns. */
#define LLADA_RMS_NORM_FORWARD_THREADS 1024
#define LLADA_RMS_NORM_BACKWARD_THREADS 512
#define LLADA_RMS_NORM_ELEMENTS 16

/* y[r, c] = x[r, c] weight[c] rstd[r], rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps); before it
 * x += residual in the entries that add. */
typedef struct LladaRmsNormArgs {
  LLADA_PTR(float) x;              /* [rows, d], only written by the entries that add */
  LLADA_PTR(const float) residual; /* [rows, d], null in the entries that do not add */
  LLADA_PTR(const float) weight;   /* [d] */
  LLADA_PTR(void) y;               /* [rows, d], f32 or bf16 by the entry */
  LLADA_PTR(float) rstd;           /* [rows] or null */
  int64_t rows;
  int32_t d;
  float eps;
} LladaRmsNormArgs;

/* dx = rstd (dy weight - n mean_c(dy weight n)) with n = x rstd, and for each chunk of rows the
 * sum of dy n, a partial sum of the weight's gradient. */
typedef struct LladaRmsNormBackwardArgs {
  LLADA_PTR(const float) x;      /* [rows, d] */
  LLADA_PTR(const float) weight; /* [d] */
  LLADA_PTR(const float) rstd;   /* [rows] */
  LLADA_PTR(const float) dy;     /* [rows, d] */
  LLADA_PTR(float) dx;           /* [rows, d] */
  LLADA_PTR(float) partials;     /* [chunks, d] */
  int64_t rows;
  int64_t chunk_rows; /* rows of a block; the last one may have fewer */
  int32_t d;
  int32_t padding;
} LladaRmsNormBackwardArgs;

/* ---- rope.cu ----------------------------------------------------------------------------- */

/* (y[i], y[i + half]) = (a cos - b sin, b cos + a sin) with (a, b) = (x[i], x[i + half]), for
 * every head of every row; sin is multiplied by sign. */
typedef struct LladaRopeArgs {
  LLADA_PTR(const float) x;            /* [rows, heads, 2 half] */
  LLADA_PTR(const float) cos;          /* [n_positions, half] */
  LLADA_PTR(const float) sin;          /* [n_positions, half] */
  LLADA_PTR(const uint32_t) positions; /* [rows] */
  LLADA_PTR(float) y;                  /* [rows, heads, 2 half] */
  int64_t rows;
  int32_t heads;
  int32_t half;
  float sign;         /* 1, or -1 for the inverse */
  int32_t lanes_log2; /* threads side by side in a half */
} LladaRopeArgs;

/* Splits rows of queries, keys and values; rotates the first two; rounds to bf16. */
typedef struct LladaRopeQkvArgs {
  LLADA_PTR(const float) qkv;          /* [rows, heads + 2 kv_heads, 2 half] */
  LLADA_PTR(const float) cos;          /* [n_positions, half] */
  LLADA_PTR(const float) sin;          /* [n_positions, half] */
  LLADA_PTR(const uint32_t) positions; /* [rows] */
  LLADA_PTR(LladaBf16) q;              /* [rows, heads, 2 half] */
  LLADA_PTR(LladaBf16) k;              /* [rows, kv_heads, 2 half] */
  LLADA_PTR(LladaBf16) v;              /* [rows, kv_heads, 2 half] */
  int64_t rows;
  int32_t heads;
  int32_t kv_heads;
  int32_t half;
  int32_t lanes_log2; /* threads side by side in a half */
} LladaRopeQkvArgs;

/* ---- swiglu.cu --------------------------------------------------------------------------- */

/* y = gate sigmoid(gate) up. */
typedef struct LladaSwigluArgs {
  LLADA_PTR(const float) gate; /* [n] */
  LLADA_PTR(const float) up;   /* [n] */
  LLADA_PTR(void) y;           /* [n], f32 or bf16 by the entry */
  int64_t n;
} LladaSwigluArgs;

/* With s = sigmoid(gate): dup = dy gate s, dgate = dy up s (1 + gate (1 - s)). */
typedef struct LladaSwigluBackwardArgs {
  LLADA_PTR(const float) gate; /* [n] */
  LLADA_PTR(const float) up;   /* [n] */
  LLADA_PTR(const float) dy;   /* [n] */
  LLADA_PTR(float) dgate;      /* [n] */
  LLADA_PTR(float) dup;        /* [n] */
  int64_t n;
} LladaSwigluBackwardArgs;

/* ---- adamw.cu ---------------------------------------------------------------------------- */

/* One update; the factors that depend on the step are computed by the host. */
typedef struct LladaAdamWArgs {
  LLADA_PTR(float) parameter;      /* [n] */
  LLADA_PTR(const float) gradient; /* [n] */
  LLADA_PTR(float) first_moment;   /* [n] */
  LLADA_PTR(float) second_moment;  /* [n] */
  int64_t n;
  float beta1;
  float beta2;
  float gradient_scale;
  float keep;              /* 1 - learning_rate weight_decay */
  float rate;              /* learning_rate / (1 - beta1^step) */
  float second_correction; /* 1 / sqrt(1 - beta2^step) */
  float eps;
  float padding;
} LladaAdamWArgs;

/* ---- global_norm.cu ---------------------------------------------------------------------- */

/* Runs of 4 elements that a thread has of a block's tile. */
#define LLADA_GLOBAL_NORM_RUNS 4

/* partials[b] = sum of x[i]^2 over the elements of block b. */
typedef struct LladaGlobalNormArgs {
  LLADA_PTR(const float) x;   /* [n] */
  LLADA_PTR(double) partials; /* [blocks] */
  int64_t n;
} LladaGlobalNormArgs;

/* total[0] = sum of the partial sums. */
typedef struct LladaGlobalNormTotalArgs {
  LLADA_PTR(const double) partials; /* [n] */
  LLADA_PTR(double) total;          /* [1] */
  int64_t n;
} LladaGlobalNormTotalArgs;

/* ---- forward_process.cu ------------------------------------------------------------------ */

/* Token i at position q of sequence b is masked if u(q, b, step) < p = (1 - eps) t + eps and it
 * may be; u and, without t, the noise level of a sequence are Philox draws. */
typedef struct LladaForwardProcessArgs {
  LLADA_PTR(const uint32_t) ids;     /* [tokens] */
  LLADA_PTR(const int64_t) offsets;  /* [sequences + 1], ascending, the first is 0 */
  LLADA_PTR(const float) t;          /* [sequences], or null: drawn */
  LLADA_PTR(const uint8_t) maskable; /* [tokens], 0 for tokens that stay, or null: all may go */
  LLADA_PTR(uint32_t) noised;        /* [tokens] */
  LLADA_PTR(float) p_mask;           /* [tokens], p of a masked token, 0 of the others */
  int64_t tokens;
  int64_t sequences;
  uint64_t seed;
  uint64_t step;
  uint32_t mask_stream;  /* stream of u */
  uint32_t ratio_stream; /* stream of t */
  uint32_t mask_token_id;
  uint32_t padding;
} LladaForwardProcessArgs;

#endif
