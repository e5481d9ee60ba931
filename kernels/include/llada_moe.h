/* The part of llada_kernels.h that is of moe.cu; include that one. */
#ifndef LLADA_MOE_H
#define LLADA_MOE_H

/* Threads of the kernels without products. */
#define LLADA_MOE_THREADS 256
/* Bytes of shared memory for each expert that the choice of a token takes. */
#define LLADA_ROUTE_EXPERT_BYTES 16

/* How experts are chosen. */
#define LLADA_ROUTE_SOFTMAX 0
#define LLADA_ROUTE_GROUPS 1
#define LLADA_ROUTE_CAPACITY 2
typedef struct LladaRouter {
  int32_t rule; /* one of the numbers above */
  int32_t n_experts;
  int32_t k;
  int32_t n_group;    /* of groups */
  int32_t topk_group; /* of groups */
  int32_t capacity;   /* of a run of tokens */
  float scale;        /* factor on weights, but for the softmax */
  int32_t padding;
} LladaRouter;

/* The experts of each token, ascending, and their weights. */
typedef struct LladaRouteArgs {
  LLADA_PTR(const float) logits;  /* [tokens, n_experts] */
  LLADA_PTR(const float) bias;    /* [n_experts], or null */
  LLADA_PTR(const uint32_t) runs; /* [n_runs + 1] boundaries of runs, of a capacity */
  LLADA_PTR(uint8_t) allowed;     /* [n_runs, n_experts], of a capacity: 1 or 0 */
  LLADA_PTR(float) ids;           /* [tokens, k], as numbers */
  LLADA_PTR(float) weights;       /* [tokens, k] */
  int32_t tokens;
  int32_t n_runs;
  LladaRouter router;
} LladaRouteArgs;

typedef struct LladaRouteBackwardArgs {
  LLADA_PTR(const float) logits;   /* [tokens, n_experts] */
  LLADA_PTR(const float) ids;      /* [tokens, k] */
  LLADA_PTR(const float) dweights; /* [tokens, k] */
  LLADA_PTR(float) dlogits;        /* [tokens, n_experts] */
  int32_t tokens;
  int32_t padding;
  LladaRouter router;
} LladaRouteBackwardArgs;

/* Where the rows of each expert are among the pairs of a token and one of its experts, by expert
 * and then by token, and which tile of rows is whose: every expert begins one. */
typedef struct LladaMoeTables {
  LLADA_PTR(int32_t) offsets;     /* [n_experts + 1]: first row of each expert */
  LLADA_PTR(int32_t) tile_starts; /* [n_experts + 1]: first tile of each expert */
  int32_t n_experts;
  int32_t padding;
} LladaMoeTables;

typedef struct LladaMoeGroupArgs {
  LLADA_PTR(const float) ids;    /* [pairs] */
  LLADA_PTR(int32_t) counts;     /* [n_experts]: rows of each expert */
  LLADA_PTR(int32_t) rows;       /* [pairs]: row of each pair */
  LLADA_PTR(int32_t) row_tokens; /* [pairs]: token of each row */
  LladaMoeTables tables;
  int32_t pairs;
  int32_t k;
  int32_t tile; /* rows of a tile */
  int32_t padding;
} LladaMoeGroupArgs;

/* y[r] = x[row_tokens[r]], rows of whole words. */
typedef struct LladaMoeGatherArgs {
  LLADA_PTR(const uint32_t) x;         /* [tokens, words] */
  LLADA_PTR(const int32_t) row_tokens; /* [rows] */
  LLADA_PTR(uint32_t) y;               /* [rows, words], contiguous */
  int64_t rows;
  int64_t words;
  int64_t x_row_words; /* from one row of x to the next */
} LladaMoeGatherArgs;

/* y[t] = sum_j weights[t, j] x[rows[t, j]], j ascending. */
typedef struct LladaMoeCombineArgs {
  LLADA_PTR(const float) x;       /* [tokens k, d] */
  LLADA_PTR(const int32_t) rows;  /* [tokens, k] */
  LLADA_PTR(const float) weights; /* [tokens, k], or null: all 1 */
  LLADA_PTR(float) y;             /* [tokens, d] */
  int64_t tokens;
  int64_t d;
  int64_t k;
} LladaMoeCombineArgs;

/* The product of the rows of each expert with its matrix: rows of a and c are grouped, m is not
 * read, b_batch_stride goes from one expert to the next. Of the entry for gradients: k is not read,
 * columns of a and rows of b are grouped, c_batch_stride goes from one expert to the next. */
typedef struct LladaMoeGemmArgs {
  LladaGemmArgs gemm;
  LladaMoeTables tables;
} LladaMoeGemmArgs;

/* The same with codes: x and y are grouped, m is not read. */
typedef struct LladaMoeQuantizedArgs {
  LladaQuantizedMatmulArgs matmul;
  LladaMoeTables tables;
  int64_t expert_rows; /* rows of the packed weight from one expert to the next, a multiple of 32 */
} LladaMoeQuantizedArgs;

/* The gradient of a row: from that of its input of down, without the expert's weight. */
typedef struct LladaMoeBackwardArgs {
  LLADA_PTR(const float) gate;    /* [pairs, f], grouped, as all but the next two */
  LLADA_PTR(const float) up;      /* [pairs, f] */
  LLADA_PTR(const float) weights; /* [pairs] */
  LLADA_PTR(const int32_t) rows;  /* [pairs] */
  LLADA_PTR(const float) dh;      /* [pairs, f] */
  LLADA_PTR(float) dgate;         /* [pairs, f] */
  LLADA_PTR(float) dup;           /* [pairs, f] */
  LLADA_PTR(float) weighted;      /* [pairs, f]: the input of down times the weight */
  LLADA_PTR(float) dweights;      /* [pairs], not grouped */
  int64_t f;
} LladaMoeBackwardArgs;

#endif
