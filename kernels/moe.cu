// Mixture of experts: k of E small feed-forward networks for each token.
//
//   choice    p = softmax(logits) + bias, the k largest p are the weights; or s = sigmoid(logits),
//             c = s + bias, the k largest c of the experts that groups or a run of tokens leave,
//             weights s / (sum of the taken s + 1e-20) scale
//   experts   y[t] = sum_e weight[t, e] down_e(silu(gate_e(x[t])) up_e(x[t]))
//
// The host never learns what was chosen, so that a recorded graph can be repeated: grids are as
// large as they can have to be, and blocks without work leave at once.
// - `llada_route_allow_fwd_f32`: which experts a run of tokens may take; a block for each run.
// - `llada_route_fwd_f32`, `.._bwd_f32`: a block for each token. Who is taken is found by counting
//   how many are better: of equal scores the lower index wins, and NaN is smaller than every number.
//   Shared memory: 16 bytes for each expert.
// - `llada_moe_count_fwd_i32`, `llada_moe_place_fwd_i32`: the pairs of a token and one of its experts
//   as rows, by expert and then by token (a stable counting sort); a block for each expert reads all
//   ids. Which tile of rows is whose follows from the same sums.
// - `llada_moe_gather_fwd_b32`: rows of x for each pair.
// - `llada_moe_gemm_fwd_{f32,bf16}`: the tiles of gemm.cu, tile y of rows being that of one expert.
// - `llada_moe_quantized_fwd_{int8,int4}`: the product of few rows of quantized.cu, up to 64 rows of
//   one expert.
// - `llada_moe_combine_fwd_f32`: the weighted sum of the rows of each token, in the order of experts.
// - `llada_moe_bwd_f32`: the gradient of what lies between the products; a block for each row.
// - `llada_moe_gradient_fwd_{f32,bf16}`: the gradient of weights, an expert along z, k being its rows;
//   f32 products of what was rounded.
//
// Accumulation: f32; a row of y depends on no other token. Deterministic: yes.
// Bytes: those of the experts that have a token, and 2 k rows of each token between the products.
//   FLOPs: 6 T k D F.
// Source: Shazeer et al. 2017 (arXiv 1701.06538); the published code of LLaDA-MoE and LLaDA2.0.

#include "gemm.cuh"
#include "quantized.cuh"
#include "reduce.cuh"

namespace llada {

// ---- choice ---------------------------------------------------------------------------------

// Whether x > y, where NaN is smaller than every number.
__device__ __forceinline__ bool is_above(float x, float y) { return x > y || (y != y && x == x); }

// Whether element `at` is among the n best of those that are allowed.
__device__ __forceinline__ bool is_among_best(const float* scores, const uint8_t* allowed, int size,
                                              int at, int n) {
  const float own = scores[at];
  int better = 0;
  for (int i = 0; i < size; i++) {
    const bool counts = allowed == nullptr || allowed[i] != 0;
    const bool wins = is_above(scores[i], own) || (i < at && !is_above(own, scores[i]));
    better += counts && wins;
  }
  return better < n;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// What a block knows of one token, in shared memory.
struct Choice {
  float *values, *scores, *groups;
  uint8_t *allowed, *taken;

  __device__ explicit Choice(int n_experts) {
    extern __shared__ __align__(16) float of_choice[];
    values = of_choice;
    scores = values + n_experts;
    groups = scores + n_experts;
    allowed = reinterpret_cast<uint8_t*>(groups + n_experts);
    taken = allowed + n_experts;
  }
};

// values[e] = softmax(logits)[e]; ends with a barrier.
__device__ __forceinline__ void softmax(float* values, const float* logits, int n) {
  __shared__ float scratch[2][LLADA_MOE_THREADS / 32];
  float largest = -INFINITY;
  for (int e = threadIdx.x; e < n; e += blockDim.x) largest = Max::apply(logits[e], largest);
  largest = block_reduce<Max>(largest, scratch[0]);
  float sum = 0.0f;
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    values[e] = expf(logits[e] - largest);
    sum += values[e];
  }
  sum = block_reduce<Sum>(sum, scratch[1]);
  for (int e = threadIdx.x; e < n; e += blockDim.x) values[e] /= sum;
  __syncthreads();
}

// The sum of the two largest scores of a group, or its only one.
__device__ __forceinline__ float group_score(const float* scores, int size) {
  float first = scores[0];
  if (size == 1) return first;
  float second = scores[1];
  if (is_above(second, first)) {
    const float x = first;
    first = second;
    second = x;
  }
  for (int i = 2; i < size; i++) {
    if (is_above(scores[i], first)) {
      second = first;
      first = scores[i];
    } else if (is_above(scores[i], second)) {
      second = scores[i];
    }
  }
  return first + second;
}

// The run of a token.
__device__ __forceinline__ int run_of(const uint32_t* runs, int n_runs, int token) {
  int low = 0, high = n_runs;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (runs[middle] <= static_cast<uint32_t>(token)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ __forceinline__ float with_bias(const LladaRouteArgs& args, float value, int e) {
  return args.bias == nullptr ? value : value + args.bias[e];
}

// Which experts may be taken; ends with a barrier.
__device__ __forceinline__ void allow(const LladaRouteArgs& args, const Choice& choice, int token) {
  const LladaRouter& router = args.router;
  const int n = router.n_experts;
  if (router.rule == LLADA_ROUTE_GROUPS) {
    const int size = n / router.n_group;
    for (int g = threadIdx.x; g < router.n_group; g += blockDim.x) {
      choice.groups[g] = group_score(choice.scores + g * size, size);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < n; e += blockDim.x) {
      choice.allowed[e] =
          is_among_best(choice.groups, nullptr, router.n_group, e / size, router.topk_group);
    }
  } else if (router.rule == LLADA_ROUTE_CAPACITY) {
    const int64_t run = run_of(args.runs, args.n_runs, token);
    for (int e = threadIdx.x; e < n; e += blockDim.x) choice.allowed[e] = args.allowed[run * n + e];
  } else {
    for (int e = threadIdx.x; e < n; e += blockDim.x) choice.allowed[e] = 1;
  }
  __syncthreads();
}

__device__ __forceinline__ void route_allow(const LladaRouteArgs& args) {
  const LladaRouter& router = args.router;
  const int n = router.n_experts, run = static_cast<int>(blockIdx.x);
  const Choice choice(n);
  const int64_t first = args.runs[run];
  const int tokens = static_cast<int>(args.runs[run + 1] - first);
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    const float* logits = args.logits + first * n + e;
    float largest = NAN;
#pragma unroll 1
    for (int i = 0; i < tokens; i++, logits += n) {
      const float score = with_bias(args, sigmoid(*logits), e);
      if (is_above(score, largest)) largest = score;
    }
    choice.scores[e] = largest;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    args.allowed[static_cast<int64_t>(run) * n + e] =
        is_among_best(choice.scores, nullptr, n, e, router.capacity);
  }
}

__device__ __forceinline__ void route(const LladaRouteArgs& args) {
  const LladaRouter& router = args.router;
  const int n = router.n_experts, token = static_cast<int>(blockIdx.x);
  const bool is_softmax = router.rule == LLADA_ROUTE_SOFTMAX;
  const Choice choice(n);
  const float* logits = args.logits + static_cast<int64_t>(token) * n;
  if (is_softmax) softmax(choice.values, logits, n);
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    if (!is_softmax) choice.values[e] = sigmoid(logits[e]);
    choice.scores[e] = with_bias(args, choice.values[e], e);
  }
  __syncthreads();
  allow(args, choice, token);
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    choice.taken[e] =
        choice.allowed[e] != 0 && is_among_best(choice.scores, choice.allowed, n, e, router.k);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    if (choice.taken[e] == 0) continue;
    int place = 0;
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
      if (choice.taken[i] == 0) continue;
      place += i < e;
      sum += choice.values[i];
    }
    sum = router.k > 1 ? sum + 1e-20f : 1.0f;
    const int64_t at = static_cast<int64_t>(token) * router.k + place;
    args.ids[at] = static_cast<float>(e);
    args.weights[at] = is_softmax ? choice.scores[e] : choice.values[e] / sum * router.scale;
  }
}

__device__ __forceinline__ void route_backward(const LladaRouteBackwardArgs& args) {
  const LladaRouter& router = args.router;
  const int n = router.n_experts, k = router.k;
  const int64_t token = blockIdx.x;
  const float* logits = args.logits + token * n;
  const float *ids = args.ids + token * k, *dweights = args.dweights + token * k;
  float* dlogits = args.dlogits + token * n;
  const bool is_softmax = router.rule == LLADA_ROUTE_SOFTMAX;
  const Choice choice(n);
  if (is_softmax) {
    softmax(choice.values, logits, n);
  } else {
    for (int e = threadIdx.x; e < n; e += blockDim.x) choice.values[e] = sigmoid(logits[e]);
    __syncthreads();
  }
  float sum = 0.0f, mean = 0.0f;
  for (int j = 0; j < k; j++) {
    const float value = choice.values[static_cast<int>(ids[j])];
    sum += value;
    mean += value * dweights[j];
  }
  sum = k > 1 ? sum + 1e-20f : 1.0f;
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    // Zero of those that were not taken.
    float slope = 0.0f;
    bool is_taken = false;
    for (int j = 0; j < k; j++) {
      if (static_cast<int>(ids[j]) == e) {
        slope = dweights[j];
        is_taken = true;
      }
    }
    const float value = choice.values[e];
    if (is_softmax) {
      dlogits[e] = value * (slope - mean);
    } else {
      const float share = k > 1 ? mean / sum : 0.0f;
      const float ds = router.scale / sum * (slope - share);
      dlogits[e] = is_taken ? ds * value * (1.0f - value) : 0.0f;
    }
  }
}

// ---- grouping -------------------------------------------------------------------------------

__device__ __forceinline__ void count_rows(const LladaMoeGroupArgs& args) {
  __shared__ int scratch[LLADA_MOE_THREADS / 32];
  const float expert = static_cast<float>(blockIdx.x);
  int count = 0;
  for (int pair = threadIdx.x; pair < args.pairs; pair += blockDim.x) {
    count += args.ids[pair] == expert;
  }
  count = block_reduce<Sum>(count, scratch);
  if (threadIdx.x == 0) args.counts[blockIdx.x] = count;
}

__device__ __forceinline__ void place_rows(const LladaMoeGroupArgs& args) {
  constexpr int kWarps = LLADA_MOE_THREADS / 32;
  __shared__ int scratch[2][kWarps], before[2][kWarps];
  const int expert = static_cast<int>(blockIdx.x), last = args.tables.n_experts - 1;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int first = 0, tiles = 0;
  for (int e = threadIdx.x; e < expert; e += blockDim.x) {
    first += args.counts[e];
    tiles += (args.counts[e] + args.tile - 1) / args.tile;
  }
  first = block_reduce<Sum>(first, scratch[0]);
  tiles = block_reduce<Sum>(tiles, scratch[1]);
  if (threadIdx.x == 0) {
    args.tables.offsets[expert] = first;
    args.tables.tile_starts[expert] = tiles;
    if (expert == last) {
      args.tables.offsets[expert + 1] = first + args.counts[expert];
      args.tables.tile_starts[expert + 1] =
          tiles + (args.counts[expert] + args.tile - 1) / args.tile;
    }
  }
  // As many pairs at a time as there are threads, in order.
  for (int start = 0, i = 0; start < args.pairs; start += LLADA_MOE_THREADS, i++) {
    const int pair = start + static_cast<int>(threadIdx.x);
    const bool is_own = pair < args.pairs && args.ids[pair] == static_cast<float>(expert);
    const uint32_t ballot = __ballot_sync(kFullWarp, is_own);
    if (lane == 0) before[i % 2][warp] = __popc(ballot);
    // Two arrays in turn: none is written while a warp still reads it.
    __syncthreads();
    int row = first + __popc(ballot & ((1u << lane) - 1));
    for (int w = 0; w < kWarps; w++) {
      const int count = before[i % 2][w];
      row += w < warp ? count : 0;
      first += count;
    }
    if (is_own) {
      args.rows[pair] = row;
      args.row_tokens[row] = pair / args.k;
    }
  }
}

// ---- rows of tokens ---------------------------------------------------------------------------

template <typename Word>
__device__ __forceinline__ void gather(const LladaMoeGatherArgs& args) {
  constexpr int kParts = sizeof(Word) / 4;
  const int64_t words = args.words / kParts, x_row_words = args.x_row_words / kParts;
  const Word* x = reinterpret_cast<const Word*>(args.x);
  Word* y = reinterpret_cast<Word*>(args.y);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       at < args.rows * words; at += threads) {
    y[at] = x[args.row_tokens[at / words] * x_row_words + at % words];
  }
}

__device__ __forceinline__ void combine(const LladaMoeCombineArgs& args) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       at < args.tokens * args.d; at += threads) {
    const int64_t token = at / args.d, column = at % args.d;
    float sum = 0.0f;
    for (int64_t pair = token * args.k; pair < (token + 1) * args.k; pair++) {
      const float weight = args.weights == nullptr ? 1.0f : args.weights[pair];
      sum = fmaf(weight, args.x[args.rows[pair] * args.d + column], sum);
    }
    args.y[at] = sum;
  }
}

// ---- products ---------------------------------------------------------------------------------

// A tile of rows of one expert.
struct ExpertTile {
  int expert;  // none if negative
  int first;   // row of the expert at which the tile starts
  int64_t offset;  // first row of the expert
  int rows;    // of the expert
};

// The tile of rows `blockIdx.y`; the same for all threads.
__device__ __forceinline__ ExpertTile find_tile(const LladaMoeTables& tables, int tile_rows) {
  __shared__ int found;
  const int tile = static_cast<int>(blockIdx.y);
  if (threadIdx.x == 0) found = -1;
  __syncthreads();
  for (int e = threadIdx.x; e < tables.n_experts; e += blockDim.x) {
    if (tables.tile_starts[e] <= tile && tile < tables.tile_starts[e + 1]) found = e;
  }
  __syncthreads();
  const int expert = found;
  if (expert < 0) return {-1, 0, 0, 0};
  const int offset = tables.offsets[expert];
  return {expert, (tile - tables.tile_starts[expert]) * tile_rows, offset,
          tables.offsets[expert + 1] - offset};
}

// The arguments of one expert's product of elements of type T.
template <typename T>
__device__ __forceinline__ LladaGemmArgs of_expert(const LladaGemmArgs& all,
                                                   const ExpertTile& tile) {
  LladaGemmArgs args = all;
  args.a = static_cast<const T*>(all.a) + tile.offset * all.a_row_stride;
  args.b = static_cast<const T*>(all.b) + tile.expert * all.b_batch_stride;
  args.c = static_cast<float*>(all.c) + tile.offset * all.c_row_stride;
  args.m = tile.rows;
  return args;
}

__device__ __forceinline__ void moe_gemm_f32(const LladaMoeGemmArgs& args) {
  const ExpertTile tile = find_tile(args.tables, kF32TileM);
  if (tile.expert < 0) return;
  const int column = static_cast<int>(blockIdx.x) * kF32TileN;
  gemm_f32<float>(of_expert<float>(args.gemm, tile), {tile.first, column});
}

__device__ __forceinline__ void moe_gemm_bf16(const LladaMoeGemmArgs& args) {
  constexpr int kTile = LLADA_GEMM_BF16_SMALL_TILE;
  const ExpertTile tile = find_tile(args.tables, kTile);
  if (tile.expert < 0) return;
  const int column = static_cast<int>(blockIdx.x) * kTile;
  Bf16GemmSmall::run(of_expert<__nv_bfloat16>(args.gemm, tile), {tile.first, column});
}

template <typename Product, typename Format>
__device__ __forceinline__ void moe_quantized(const LladaMoeQuantizedArgs& all) {
  const ExpertTile tile = find_tile(all.tables, kMaxM);
  if (tile.expert < 0) return;
  LladaQuantizedMatmulArgs args = all.matmul;
  const int64_t row = tile.offset + tile.first, first = tile.expert * all.expert_rows;
  args.x += row * args.weight.steps * kStep;
  args.y += row * args.y_row_stride;
  args.m = min(tile.rows - tile.first, kMaxM);
  args.weight.codes +=
      first * args.weight.steps * (kStep / Format::kChunkCodes) * kChunkBytes;
  if (Format::kHasMultipliers) args.weight.multipliers += first * kGroups;
  args.scales += first;
  Product::run(args);
}

// Expert `blockIdx.z`, whose rows are the k of the product.
template <typename T>
__device__ __forceinline__ void moe_gradient(const LladaMoeGemmArgs& all) {
  const int expert = static_cast<int>(blockIdx.z);
  const int64_t offset = all.tables.offsets[expert];
  const int rows = static_cast<int>(all.tables.offsets[expert + 1] - offset);
  if (rows == 0) return;
  LladaGemmArgs args = all.gemm;
  args.a = static_cast<const T*>(args.a) + offset * args.a_column_stride;
  args.b = static_cast<const T*>(args.b) + offset * args.b_row_stride;
  args.k = rows;
  gemm_f32<T>(args, tile_of_block(args.m, args.n, kF32TileM, kF32TileN));
}

// ---- between the products -----------------------------------------------------------------------

__device__ __forceinline__ void moe_backward(const LladaMoeBackwardArgs& args) {
  __shared__ float scratch[LLADA_MOE_THREADS / 32];
  const int64_t pair = blockIdx.x, first = args.rows[pair] * args.f;
  const float weight = args.weights[pair];
  float dot = 0.0f;
  for (int64_t at = first + threadIdx.x; at < first + args.f; at += blockDim.x) {
    const float gate = args.gate[at], up = args.up[at], dh = args.dh[at];
    const float s = sigmoid(gate), h = gate * s * up;
    dot = fmaf(h, dh, dot);
    args.weighted[at] = weight * h;
    const float dy = weight * dh;
    args.dgate[at] = dy * up * (s * (1.0f + gate * (1.0f - s)));
    args.dup[at] = dy * (gate * s);
  }
  dot = block_reduce<Sum>(dot, scratch);
  if (threadIdx.x == 0) args.dweights[pair] = dot;
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_route_allow_fwd_f32(const LladaRouteArgs args) {
  llada::route_allow(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_route_fwd_f32(const LladaRouteArgs args) {
  llada::route(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_route_bwd_f32(const LladaRouteBackwardArgs args) {
  llada::route_backward(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_moe_count_fwd_i32(const LladaMoeGroupArgs args) {
  llada::count_rows(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_moe_place_fwd_i32(const LladaMoeGroupArgs args) {
  llada::place_rows(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_moe_gather_fwd_b32(const LladaMoeGatherArgs args) {
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(args.x) | reinterpret_cast<uintptr_t>(args.y);
  if (addresses % 16 == 0 && args.words % 4 == 0 && args.x_row_words % 4 == 0) {
    llada::gather<uint4>(args);
  } else {
    llada::gather<uint32_t>(args);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_moe_combine_fwd_f32(const LladaMoeCombineArgs args) {
  llada::combine(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_F32_THREADS, 2)
    llada_moe_gemm_fwd_f32(const LladaMoeGemmArgs args) {
  llada::moe_gemm_f32(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_BF16_SMALL_THREADS, 4)
    llada_moe_gemm_fwd_bf16(const LladaMoeGemmArgs args) {
  llada::moe_gemm_bf16(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_moe_quantized_fwd_int8(const LladaMoeQuantizedArgs args) {
  llada::moe_quantized<llada::SkinnyInt8, llada::Int8>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_moe_quantized_fwd_int4(const LladaMoeQuantizedArgs args) {
  llada::moe_quantized<llada::SkinnyInt4, llada::Int4>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_F32_THREADS, 2)
    llada_moe_gradient_fwd_f32(const LladaMoeGemmArgs args) {
  llada::moe_gradient<float>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_GEMM_F32_THREADS, 2)
    llada_moe_gradient_fwd_bf16(const LladaMoeGemmArgs args) {
  llada::moe_gradient<__nv_bfloat16>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_MOE_THREADS)
    llada_moe_bwd_f32(const LladaMoeBackwardArgs args) {
  llada::moe_backward(args);
}
