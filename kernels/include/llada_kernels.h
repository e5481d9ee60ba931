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

/* ---- attention.cu ------------------------------------------------------------------------ */

/* Threads of a block of the tensor-core kernels, and keys per tile. */
#define LLADA_ATTENTION_THREADS 128
#define LLADA_ATTENTION_KEYS 64
/* Threads of a block of the f32 kernels, and both sides of their tiles. */
#define LLADA_ATTENTION_F32_THREADS 256
#define LLADA_ATTENTION_F32_TILE 64
/* Threads of a block that rounds keys and values, and elements that each of them rounds. */
#define LLADA_ATTENTION_ROUND_THREADS 256
#define LLADA_ATTENTION_ROUND_ELEMENTS 8

/* Which queries meet which keys. */
typedef struct LladaAttentionPlaces {
  LLADA_PTR(const int64_t) offsets;     /* [B + 1], ascending from 0: the sequences in T */
  LLADA_PTR(const int64_t) key_offsets; /* [B + 1]: those in the keys and values, T_k */
  LLADA_PTR(const float) key_bias;      /* [T_k], added to the scores of each key; or null */
  int32_t n_heads;
  int32_t n_kv_heads; /* divides n_heads */
  int32_t head_dim;
  int32_t block_size; /* key j is seen by query i if j / block_size <= i / block_size; 0: all */
  float scale;        /* of the scores: 1 / sqrt(head_dim) */
  int32_t padding;
} LladaAttentionPlaces;

/* y_i = sum_j softmax_j(scale q_i . k_j + bias_j) v_j, lse_i = ln sum_j exp(scale q_i . k_j +
 * bias_j); a query that sees no key has y = 0 and lse = -inf. */
typedef struct LladaAttentionArgs {
  LLADA_PTR(const float) q; /* [T, H * E] */
  LLADA_PTR(const void) k;  /* [T_k, K * E], of the type that the entry names */
  LLADA_PTR(const void) v;  /* [T_k, K * E] */
  LLADA_PTR(float) y;       /* [T, H * E] */
  LLADA_PTR(float) lse;     /* [T, H] */
  int64_t q_stride;         /* elements from a token to the next, of q and y */
  int64_t kv_stride;        /* of k and v */
  LladaAttentionPlaces places;
} LladaAttentionArgs;

/* Gradients; q, k, v, y and lse are those of the forward pass. */
typedef struct LladaAttentionBackwardArgs {
  LLADA_PTR(const float) q;     /* [T, H * E] */
  LLADA_PTR(const float) k;     /* [T, K * E] */
  LLADA_PTR(const float) v;     /* [T, K * E] */
  LLADA_PTR(const float) y;     /* [T, H * E] */
  LLADA_PTR(const float) dy;    /* [T, H * E] */
  LLADA_PTR(const float) lse;   /* [T, H] */
  LLADA_PTR(float) delta;       /* [T, H]: sums of dy * y, made by the first kernel */
  LLADA_PTR(float) dq;          /* [T, H * E] */
  LLADA_PTR(float) dk;          /* [T, K * E] */
  LLADA_PTR(float) dv;          /* [T, K * E] */
  int64_t q_stride;             /* elements from a token to the next, of q, y, dy and dq */
  int64_t kv_stride;            /* of k, v, dk and dv */
  int64_t rows;                 /* T * H, of delta */
  LladaAttentionPlaces places;
} LladaAttentionBackwardArgs;

/* Keys and values rounded to 16 bits. */
typedef struct LladaAttentionRoundArgs {
  LLADA_PTR(const float) k;
  LLADA_PTR(const float) v;
  LLADA_PTR(void) k_out;
  LLADA_PTR(void) v_out;
  int64_t n; /* elements of each, a multiple of 8 */
} LladaAttentionRoundArgs;

#endif
