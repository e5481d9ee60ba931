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

/* ---- head.cuh: what the kernels of an LM head share --------------------------------------- */

/* Vocabulary entries of a tile, whatever the rows: the sums of a row do not depend on the others. */
#define LLADA_HEAD_TILE 128
/* Bytes of each row of the head that are in shared memory at a time. */
#define LLADA_HEAD_SLAB_BYTES 128
/* Elements from one row of logits to the next in shared memory: 16 bytes more than a tile. */
#define LLADA_HEAD_LOGIT_STRIDE 132

/* logits[r, v] = sum_d hidden[r, d] head[v, d] + bias[v], for the entries start .. start + len. */
typedef struct LladaHead {
  LLADA_PTR(const void) head;          /* [len, d] from entry `start` on, bf16 or f32 */
  LLADA_PTR(const void) hidden;        /* [rows, d], of the same type */
  LLADA_PTR(const void) unconditional; /* [rows, d], or null without guidance */
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

/* y[r, c] = bf16(x[r, c]). */
typedef struct LladaRoundArgs {
  LLADA_PTR(const float) x;     /* [rows, d] */
  LLADA_PTR(LladaBf16) y;       /* [rows, d] */
  int64_t x_stride;
  int64_t y_stride;
  int64_t rows;
  int64_t d;
} LladaRoundArgs;

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

/* dbias[c] += sum_r dlogits[r, c]. */
typedef struct LladaCrossEntropyBiasArgs {
  LLADA_PTR(const float) dlogits; /* [rows, columns] */
  LLADA_PTR(float) dbias;         /* [columns] */
  int64_t rows;
  int64_t columns;
} LladaCrossEntropyBiasArgs;

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

/* What a step did to one sequence. */
typedef struct LladaRemaskOutcome {
  uint32_t revealed; /* tokens written; where the mask won, the mask stays */
  uint32_t masked;   /* rows that are still masked after it */
  uint32_t invalid;  /* rows whose score or confidence was NaN */
  uint32_t reserved;
} LladaRemaskOutcome;

/* canvas[positions[r]] = candidates[r].token for the rows of each sequence that stay. */
typedef struct LladaRemaskArgs {
  LLADA_PTR(const LladaRemaskRule) rules;       /* [sequences] */
  LLADA_PTR(const uint32_t) positions;          /* [rows], ascending in each sequence */
  LLADA_PTR(const LladaCandidate) candidates;   /* [rows] */
  LLADA_PTR(uint32_t) canvas;                   /* [canvas_len] ids of all sequences */
  LLADA_PTR(uint32_t) ranks;                    /* [rows] scratch */
  LLADA_PTR(LladaRemaskOutcome) outcomes;       /* [sequences] */
  uint32_t sequences;
  uint32_t mask_token_id;
} LladaRemaskArgs;

#endif
