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

/* bfloat16 by its bits, for C. */
typedef uint16_t LladaBf16;
/* ---- element-wise kernels ------------------------------------------------------------------ */
/* Threads of a block of add.cu, adamw.cu, embedding.cu, global_norm.cu and swiglu.cu, and most of
 * rope.cu: small, so that the last wave of blocks is short. With up to 48 registers per thread 5
 * blocks fit a multiprocessor, 20 KiB of loads in flight per operand. */
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
/* Most threads of a block, and elements of a row that a thread keeps in registers: of blocks of
 * 512 threads each has 128 registers, and the backward kernel takes about 100, three values per
 * element. Rows are kept whole up to 8,192 columns. */
#define LLADA_RMS_NORM_THREADS 512
#define LLADA_RMS_NORM_ELEMENTS 16

/* y[r, c] = x[r, c] weight[c] rstd[r], rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps). */
typedef struct LladaRmsNormArgs {
  LLADA_PTR(const float) x;      /* [rows, d] */
  LLADA_PTR(const float) weight; /* [d] */
  LLADA_PTR(void) y;             /* [rows, d], f32 or bf16 by the entry */
  LLADA_PTR(float) rstd;         /* [rows] */
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
/* (y[i], y[i + half]) = (a cos - b sin, b cos + a sin) with (a, b) = (x[i], x[i + half]), for the
 * first 2 half elements of every head of every row; sin is multiplied by sign. The others stay. */
typedef struct LladaRopeArgs {
  LLADA_PTR(const float) x;            /* [rows, heads, head_dim] */
  LLADA_PTR(const float) cos;          /* [n_positions, half] */
  LLADA_PTR(const float) sin;          /* [n_positions, half] */
  LLADA_PTR(const uint32_t) positions; /* [rows] */
  LLADA_PTR(void) y;                   /* [rows, heads, head_dim], f32 or bf16 by the entry */
  int64_t rows;
  int32_t heads;
  int32_t half;
  float sign;         /* 1, or -1 for the inverse */
  int32_t lanes_log2; /* threads side by side in a half */
  int32_t head_dim;   /* at least 2 half */
  int32_t padding;
} LladaRopeArgs;

/* ---- swiglu.cu --------------------------------------------------------------------------- */
/* y = gate sigmoid(gate) up. */
typedef struct LladaSwigluArgs {
  LLADA_PTR(const void) gate; /* [rows, columns], types of all by the entry */
  LLADA_PTR(const void) up;   /* [rows, columns] */
  LLADA_PTR(void) y;          /* [rows, columns] */
  int64_t rows;
  int64_t columns;
  int64_t row_stride; /* of all; that of f32 is `columns` */
} LladaSwigluArgs;

/* With s = sigmoid(gate): dup = dy gate s, dgate = dy up s (1 + gate (1 - s)). */
typedef struct LladaSwigluBackwardArgs {
  LLADA_PTR(const void) gate; /* [rows, columns], types of all by the entry */
  LLADA_PTR(const void) up;   /* [rows, columns] */
  LLADA_PTR(const void) dy;   /* [rows, columns] */
  LLADA_PTR(void) dgate;      /* [rows, columns] */
  LLADA_PTR(void) dup;        /* [rows, columns] */
  int64_t rows;
  int64_t columns;
  int64_t row_stride; /* of all; that of f32 is `columns` */
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

/* totals[t] = sum of the partial sums of tensor t. */
typedef struct LladaGlobalNormTotalArgs {
  LLADA_PTR(const double) partials; /* [tensors, n], zeros where a tensor has fewer */
  LLADA_PTR(double) totals;         /* [tensors] */
  int64_t n;
} LladaGlobalNormTotalArgs;

/* ---- gemm.cu ------------------------------------------------------------------------------ */
/* c[i, m, n] (+)= scale[n] sum_k a[i, m, k] b[i, k, n], and all scales are 1 if there are none.
 * A row of c has no gaps. */
typedef struct LladaGemmArgs {
  LLADA_PTR(const void) a; /* [batch, m, k], any strides */
  LLADA_PTR(const void) b; /* [batch, k, n], any strides */
  LLADA_PTR(void) c;       /* [batch, m, n], f32 or as `output` says */
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
  int32_t output; /* what becomes of c: one of the numbers below */
} LladaGemmArgs;
#define LLADA_GEMM_REPLACE 0
#define LLADA_GEMM_ADD 1
#define LLADA_GEMM_REPLACE_BF16 2 /* c is bf16 */

/* y[i, r, c] = bf16(x[i, r, c]), and 0 for columns <= c < y_columns. */
typedef struct LladaCastArgs {
  LLADA_PTR(const void) x;    /* [batch, rows, columns], any strides; f32 or bf16 by the entry */
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
#define LLADA_QUANTIZED_INT4_SHARED 76800
/* ---- moe.cu ------------------------------------------------------------------------------- */
#include "llada_moe.h"
/* ---- attention.cu ------------------------------------------------------------------------ */
/* Threads of a block of the tensor-core kernels, and keys per tile. */
#define LLADA_ATTENTION_THREADS 128
#define LLADA_ATTENTION_KEYS 64
/* Tiles of keys and values in shared memory, for head dimensions 64 and 128. What they take leaves
 * room for two blocks on a multiprocessor: 96 KiB of 100 and more, with 64 queries or head
 * dimension 64; 160 of 164 KiB with 128 of both. */
#define LLADA_ATTENTION_STAGES_D64 4
#define LLADA_ATTENTION_STAGES_D128 3
/* Rows of a block of the tensor-core gradient, and bytes of its tiles of the other kind. */
#define LLADA_ATTENTION_BACKWARD_ROWS 64
#define LLADA_ATTENTION_BACKWARD_BYTES 8192
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
  int32_t n_heads;
  int32_t n_kv_heads; /* divides n_heads */
  int32_t head_dim;
  int32_t block_size; /* key j is seen by query i if j / block_size <= i / block_size; 0: all */
  float scale;        /* of the scores: 1 / sqrt(head_dim) */
  int32_t padding;
} LladaAttentionPlaces;

/* y_i = sum_j softmax_j(scale q_i . k_j) v_j, lse_i = ln sum_j exp(scale q_i . k_j); a query that
 * sees no key has y = 0 and lse = -inf. */
typedef struct LladaAttentionArgs {
  LLADA_PTR(const void) q;  /* [T, H * E], f32, or bf16 if is_bf16 */
  LLADA_PTR(const void) k;  /* [T_k, K * E], of the type that the entry names */
  LLADA_PTR(const void) v;  /* [T_k, K * E] */
  LLADA_PTR(void) y;        /* [T, H * E], of the type of q */
  LLADA_PTR(float) lse;     /* [T, H] */
  int64_t q_stride;         /* elements from a token to the next, of q and y */
  int64_t kv_stride;        /* of k and v */
  LladaAttentionPlaces places;
  int32_t is_bf16;
  int32_t padding;
} LladaAttentionArgs;

/* Gradients; q, k, v, y and lse are those of the forward pass. */
typedef struct LladaAttentionBackwardArgs {
  LLADA_PTR(const float) q;     /* [T, H * E] */
  LLADA_PTR(const float) k;     /* [T, K * E] */
  LLADA_PTR(const float) v;     /* [T, K * E] */
  LLADA_PTR(const void) y;      /* [T, H * E], f32, or bf16 if y_is_bf16 */
  LLADA_PTR(const float) dy;    /* [T, H * E] */
  LLADA_PTR(const float) lse;   /* [T, H] */
  LLADA_PTR(float) delta;       /* [T, H]: sums of dy * y, made by the first kernel */
  LLADA_PTR(float) dq;          /* [T, H * E] */
  LLADA_PTR(float) dk;          /* [T, K * E] */
  LLADA_PTR(float) dv;          /* [T, K * E] */
  int64_t q_stride;             /* elements from a token to the next, of q, y, dy and dq */
  int64_t kv_stride;            /* of k, v, dk and dv */
  /* Rounded to bf16, for tensor cores; q after it was multiplied by scale log2(e). */
  LLADA_PTR(const void) rounded_q;
  LLADA_PTR(const void) rounded_k;
  LLADA_PTR(const void) rounded_v;
  LLADA_PTR(const void) rounded_dy;
  int64_t rows;                 /* T * H, of delta */
  LladaAttentionPlaces places;
  int32_t y_is_bf16;
  int32_t padding;
} LladaAttentionBackwardArgs;

/* Two matrices of one size rounded to bf16, the first one times a factor. */
typedef struct LladaAttentionRoundArgs {
  LLADA_PTR(const void) first; /* f32, or bf16 if first_is_bf16 */
  LLADA_PTR(const float) second;
  LLADA_PTR(void) first_out;
  LLADA_PTR(void) second_out;
  int64_t n; /* elements of each, a multiple of 8 */
  float factor;
  int32_t first_is_bf16;
} LladaAttentionRoundArgs;
/* ---- head.cuh: what the kernels of an LM head share --------------------------------------- */
/* Vocabulary entries of a tile, whatever the rows: the sums of a row do not depend on the others. */
#define LLADA_HEAD_TILE 128
/* Bytes of each row of the head that are in shared memory at a time. */
#define LLADA_HEAD_SLAB_BYTES 128
/* Elements from one row of logits to the next in shared memory: 16 bytes more than a tile. */
#define LLADA_HEAD_LOGIT_STRIDE 132

/* logits[r, v] = sum_d hidden[r, d] head[v, d] + bias[v], for the entries start .. start + len.
 * Rows of bf16 start at 16 bytes and are filled up with zeros to whole 16 bytes; those of f32 are
 * read faster if they start at 16 bytes. */
typedef struct LladaHead {
  LLADA_PTR(const void) head;          /* [len, d] from entry `start` on, bf16 or f32 */
  LLADA_PTR(const void) hidden;        /* [rows, d], of the same type, or logits [rows, len] */
  LLADA_PTR(const void) unconditional; /* as hidden, or null without guidance */
  LLADA_PTR(const float) bias;         /* [vocab_size], or null */
  int64_t head_stride;
  int64_t hidden_stride; /* also that of unconditional */
  int64_t start;         /* a multiple of the tile */
  int64_t len;
  int64_t vocab_size;
  int32_t rows;
  int32_t d;
} LladaHead;

/* ---- candidates.cu ------------------------------------------------------------------------ */
/* Where Gumbel noise comes from. */
#define LLADA_NOISE_NONE 0
#define LLADA_NOISE_PHILOX 1
#define LLADA_NOISE_RECORDED 2

/* What a tile of the vocabulary adds to a row. */
typedef struct LladaCandidatePartial {
  double score;      /* the best, logit plus noise; -inf if there is nothing to choose */
  uint32_t token;    /* its token */
  float token_logit; /* and its logit without noise */
  float first;       /* the largest logit of those that count */
  float second;      /* the second largest */
  float sum;         /* sum e^(x - first), NaN if a logit is */
  float weighted;    /* sum e^(x - first) (x - first) */
} LladaCandidatePartial;

/* The chosen token of a row, its probability, and how sure the distribution is. */
typedef struct LladaCandidate {
  uint32_t token;
  float confidence;
  float margin;
  float entropy;
} LladaCandidate;

/* Partials of a part of the vocabulary. */
typedef struct LladaCandidatesArgs {
  LladaHead head;
  LLADA_PTR(const uint32_t) suppress;            /* [n_suppress] ids */
  LLADA_PTR(const uint32_t) suppress_confidence; /* [n_suppress_confidence] ids */
  LLADA_PTR(const uint64_t) seeds;               /* [rows], for Philox */
  LLADA_PTR(const uint32_t) keys;                /* [rows, 3]: sequence, position, step */
  LLADA_PTR(const double) recorded;              /* [rows, vocab_size] */
  LLADA_PTR(LladaCandidatePartial) partials;     /* [rows, tiles] */
  double temperature;
  int32_t noise;
  float cfg_scale;
  int32_t n_suppress;
  int32_t n_suppress_confidence;
  int64_t tiles; /* of the whole vocabulary */
} LladaCandidatesArgs;

/* Merges the partials of each row. */
typedef struct LladaCandidatesMergeArgs {
  LLADA_PTR(const LladaCandidatePartial) partials;   /* [rows, tiles] */
  LLADA_PTR(const uint32_t) suppress_confidence;     /* [n_suppress_confidence] ids */
  LLADA_PTR(LladaCandidate) candidates;              /* [rows] */
  int64_t tiles;
  int32_t rows;
  int32_t n_suppress_confidence;
} LladaCandidatesMergeArgs;

/* ---- cross_entropy.cu --------------------------------------------------------------------- */
/* What a tile of the vocabulary adds to a row: sum e^(x - max). */
typedef struct LladaCrossEntropyPartial {
  float max;
  float sum;
} LladaCrossEntropyPartial;

/* Partials of a part of the vocabulary, and the logits of the targets in it. */
typedef struct LladaCrossEntropyArgs {
  LladaHead head;
  LLADA_PTR(const uint32_t) targets;            /* [rows] */
  LLADA_PTR(LladaCrossEntropyPartial) partials; /* [rows, tiles] */
  LLADA_PTR(float) target_logits;               /* [rows] */
  int64_t tiles;                                /* of the whole vocabulary */
} LladaCrossEntropyArgs;

/* Merges the partials of each row. */
typedef struct LladaCrossEntropyMergeArgs {
  LLADA_PTR(const LladaCrossEntropyPartial) partials; /* [rows, tiles] */
  LLADA_PTR(const float) target_logits;               /* [rows] */
  LLADA_PTR(float) losses;                            /* [rows] */
  LLADA_PTR(float) lse;                               /* [rows] */
  int64_t tiles;
  int64_t rows;
} LladaCrossEntropyMergeArgs;

/* dlogits[r, v - start] = dlosses[r] (e^(logits[r, v] - lse[r]) - [v = targets[r]]). */
typedef struct LladaCrossEntropyBackwardArgs {
  LladaHead head;
  LLADA_PTR(const uint32_t) targets; /* [rows] */
  LLADA_PTR(const float) dlosses;    /* [rows] */
  LLADA_PTR(const float) lse;        /* [rows] */
  LLADA_PTR(float) dlogits;          /* [rows, len] */
} LladaCrossEntropyBackwardArgs;

/* ---- remask.cu ---------------------------------------------------------------------------- */
/* What the rows of a sequence are ranked by. */
#define LLADA_SCORE_CONFIDENCE 0
#define LLADA_SCORE_MARGIN 1
#define LLADA_SCORE_ENTROPY 2

/* How many of the ranked rows stay. */
#define LLADA_KEEP_QUOTA 0
#define LLADA_KEEP_THRESHOLD 1
#define LLADA_KEEP_FACTOR 2

/* How one sequence is remasked. */
typedef struct LladaRemaskRule {
  uint32_t first_row;  /* its rows are first_row .. first_row + rows */
  uint32_t rows;
  uint32_t score;      /* LLADA_SCORE_* */
  uint32_t keep;       /* LLADA_KEEP_* */
  uint32_t quota;      /* with LLADA_KEEP_QUOTA */
  float bound;         /* the threshold, or the factor */
} LladaRemaskRule;

/* canvas[positions[r]] = candidates[r].token for the rows of each sequence that stay. */
typedef struct LladaRemaskArgs {
  LLADA_PTR(const LladaRemaskRule) rules;       /* [sequences] */
  LLADA_PTR(const uint32_t) positions;          /* [rows], ascending in each sequence */
  LLADA_PTR(const LladaCandidate) candidates;   /* [rows] */
  LLADA_PTR(uint32_t) canvas;                   /* [canvas_len] ids of all sequences */
  LLADA_PTR(uint32_t) ranks;                    /* [rows] scratch */
  uint32_t sequences;
  uint32_t mask_token_id;
} LladaRemaskArgs;

#endif
