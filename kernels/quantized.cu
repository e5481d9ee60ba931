// Products with weights of 8-bit or 4-bit integers:
// y[m, n] (+)= scale[n] sum_k multiplier[n, k / 32] code[n, k] rotated_x[m, k], f32 sums.
//
// Codes live behind a rotation of 64 values (crates/llada-tensor/src/quantize.rs), so that x is
// rotated too; `code * multiplier` is an integer of at most 127, which bf16 holds exactly: only x
// is rounded, once, to bf16.
// - `llada_pack_codes_fwd_int8`, `.._int4`: codes in their natural order into the packed form.
// - `llada_rotate_fwd_bf16`: a warp rotates 64 values, lane i holds values i and i + 32; the sums
//   are those of the CPU, in its order.
// - `llada_quantized_matmul_fwd_int8`, `.._int4`: up to 64 rows of x, which is bound by reading
//   the weight once. Below.
// - `llada_dequantize_fwd_int8`, `.._int4`: rows of the weight as bf16 without scales, for a product
//   of more rows by a gemm that scales columns.
//
// Packed form. A chunk of 16 bytes is four words, word t for the lanes with lane % 4 == t of
// mma.sync m16n8k16, which hold columns 2t, 2t + 1, 2t + 8 and 2t + 9 of a 16-column step:
// - 8 bits: a chunk is 16 codes; bytes 0, 2, 1, 3 of word t are codes 2t, 2t + 1, 2t + 8, 2t + 9.
// - 4 bits: a chunk is a group of 32 codes; nibbles i and i + 4 of word t are codes 8i + 2t and
//   8i + 2t + 1 for i = 0..3, plus 8.
// So a word becomes operands of mma.sync by masks and one fused multiply-add per pair.
//
// The product: the weight is the 16-row operand of mma.sync and x the 8-column one. A block makes
// 32 columns of y for all m; of its 8 warps two share the columns, 16 each, and four share each
// step of 128 k, 32 each; their sums are added in the end, in order. Warps 0 and 1 copy the weight,
// which comes from device memory, many stages ahead; warps 2 to 7 copy x, which comes from the
// second-level cache, two stages ahead. Copies are counted per thread, so that neither waits for
// the other's.
// Shared memory: a stage of the weight is a plane per chunk of a row's step, in it 16 bytes for
// each of 32 rows, and 16 or 32 bytes more, which spread copies over the banks; lanes of a warp read
// 128 consecutive bytes. A stage of x is 64 rows of 128 bf16, its chunk c at c ^ (row % 8).
// 81 KiB, within the 99 KiB of consumer cards.
// Bytes: n k (8 bits) or n k / 2 + n k / 32 (4 bits) from device memory, and m k per 32 columns from
// the second-level cache; 2 m n k FLOPs. Deterministic; a row of y does not depend on the others.

#include "llada_kernels.h"
#include "mma.cuh"

namespace llada {

constexpr int kStep = LLADA_QUANTIZED_STEP;
constexpr int kGroup = LLADA_QUANTIZED_GROUP;
constexpr int kGroups = kStep / kGroup;
constexpr int kChunkBytes = 16;
constexpr int kWords = kChunkBytes / 4;

// Pairs of ones and of powers of two in bf16: adding small integers to 128 puts them into its low
// bits, where the unit is 1.
constexpr uint32_t kOnes = 0x3f803f80u, k128 = 0x43004300u, kMinus128 = 0xc300c300u;

// What a thread knows of the multipliers of a group: none are needed for 8 bits.
struct Int8 {
  static constexpr bool kHasMultipliers = false;
  static constexpr int kChunkCodes = 16;
  struct Scaling {};
  static __device__ __forceinline__ Scaling scaling(int8_t) { return {}; }

  // Pairs of columns 2t, 2t + 1 and 2t + 8, 2t + 9. A byte is its lower 7 bits, less 128 if its
  // highest bit is set: (128 + low) - 128 or (128 + low) - 256.
  static __device__ __forceinline__ void widen(uint32_t (&pairs)[2], uint32_t word, Scaling) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint32_t bytes = word >> (8 * i);
      const uint32_t low = (bytes & 0x007f007fu) | k128;
      const uint32_t high = (bytes & 0x00800080u) | kMinus128;
      pairs[i] = fma_pair(low, kOnes, high);
    }
  }
};

struct Int4 {
  static constexpr bool kHasMultipliers = true;
  static constexpr int kChunkCodes = 32;
  // Pairs of the multiplier m and of -136 m: both are exact, as |17 m| < 256.
  struct Scaling {
    uint32_t factor, offset;
  };
  static __device__ __forceinline__ Scaling scaling(int8_t multiplier) {
    const float m = static_cast<float>(multiplier);
    return {pack_pair(m, m), pack_pair(-136.0f * m, -136.0f * m)};
  }

  // Pairs of columns 8i + 2t and 8i + 2t + 1 for i = 0..3, as (128 + code + 8) m - 136 m.
  static __device__ __forceinline__ void widen(uint32_t (&pairs)[4], uint32_t word, Scaling scaling) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint32_t nibbles = ((word >> (4 * i)) & 0x000f000fu) | k128;
      pairs[i] = fma_pair(nibbles, scaling.factor, scaling.offset);
    }
  }
};

// ---- packing and unpacking ------------------------------------------------------------------

// A thread makes one word. Codes that the source does not have are zero.
template <typename Format>
__device__ __forceinline__ void pack_codes(const LladaPackCodesArgs& args) {
  constexpr int kStepWords = kStep / Format::kChunkCodes * kWords;
  const int64_t per_row = static_cast<int64_t>(args.packed.steps) * kStepWords;
  const int64_t total = args.rows * per_row;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < total;
       at += threads) {
    const int64_t row = at / per_row;
    const int word_in_row = static_cast<int>(at % per_row);
    const int t = word_in_row % kWords;
    const int first = word_in_row / kWords * Format::kChunkCodes;
    const int8_t* source = args.codes + row * args.k + first;
    // k is a multiple of every chunk's codes.
    const bool exists = first < args.k;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < Format::kChunkCodes / kWords; i++) {
      const int code = exists ? source[i / 2 * 8 + 2 * t + i % 2] : 0;
      // Pair i / 2: its first code in the lower half of the word, its second in the upper one.
      if (Format::kHasMultipliers) {
        word |= static_cast<uint32_t>((code + 8) & 15) << (i / 2 * 4 + i % 2 * 16);
      } else {
        word |= static_cast<uint32_t>(code & 255) << (i / 2 * 8 + i % 2 * 16);
      }
    }
    const int64_t packed_row = args.first_row + row;
    reinterpret_cast<uint32_t*>(args.packed.codes)[packed_row * per_row + word_in_row] = word;
    if (Format::kHasMultipliers && t == 0) {
      const int group = word_in_row / kWords, step = group / kGroups;
      const int8_t multiplier =
          exists ? args.multipliers[row * (args.k / kGroup) + group] : static_cast<int8_t>(0);
      args.packed.multipliers[(step * static_cast<int64_t>(args.packed.padded_rows) + packed_row) *
                                  kGroups +
                              group % kGroups] = multiplier;
    }
  }
}

// A thread widens one word.
template <typename Format>
__device__ __forceinline__ void dequantize(const LladaDequantizeArgs& args) {
  constexpr int kPairs = Format::kChunkCodes / kWords / 2;
  constexpr int kStepWords = kStep / Format::kChunkCodes * kWords;
  const LladaPackedCodes& weight = args.weight;
  const int64_t per_row = static_cast<int64_t>(weight.steps) * kStepWords;
  const int64_t total = args.rows * per_row;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < total;
       at += threads) {
    const int64_t row = args.first_row + at / per_row;
    const int word_in_row = static_cast<int>(at % per_row);
    const int chunk = word_in_row / kWords, t = word_in_row % kWords;
    int8_t multiplier = 0;
    if (Format::kHasMultipliers) {
      const int64_t step = chunk / kGroups;
      multiplier = weight.multipliers[(step * weight.padded_rows + row) * kGroups + chunk % kGroups];
    }
    uint32_t pairs[kPairs];
    Format::widen(pairs, reinterpret_cast<const uint32_t*>(weight.codes)[row * per_row + word_in_row],
                  Format::scaling(multiplier));
    uint32_t* y = reinterpret_cast<uint32_t*>(args.y) +
                  (at / per_row * weight.steps * kStep + chunk * Format::kChunkCodes) / 2 + t;
#pragma unroll
    for (int i = 0; i < kPairs; i++) y[4 * i] = pairs[i];
  }
}

// ---- rotation -------------------------------------------------------------------------------

constexpr int kRotation = 64;

// x[i] and x[i + half] become their sum and their difference, where `is_upper` is the lane of the
// second.
__device__ __forceinline__ float butterfly(float x, int half, bool is_upper) {
  const float other = __shfl_xor_sync(0xffffffffu, x, half);
  return is_upper ? other - x : x + other;
}

__device__ __forceinline__ void rotate(const LladaRotateArgs& args) {
  const int lane = threadIdx.x % 32;
  const int64_t per_row = args.y_columns / kRotation;
  const int64_t total = args.rows * per_row;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; at < total;
       at += warps) {
    const float* row = args.x + at / per_row * args.x_row_stride;
    const int column = static_cast<int>(at % per_row) * kRotation + lane;
    const float first = column < args.k ? row[column * args.x_column_stride] : 0.0f;
    const float second = column + 32 < args.k ? row[(column + 32) * args.x_column_stride] : 0.0f;
    float values[2] = {first + second, first - second};
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int half = 16; half > 0; half /= 2) {
        values[i] = butterfly(values[i], half, (lane & half) != 0);
      }
      // A value that is not finite makes all 64 infinite or NaN. They become NaN, as on the CPU:
      // infinities could meet codes of one sign and leave the row infinite.
      values[i] = isfinite(values[i]) ? values[i] * 0.125f : nanf("");
      reinterpret_cast<__nv_bfloat16*>(args.y)[at * kRotation + 32 * i + lane] =
          __float2bfloat16_rn(values[i]);
    }
  }
}

// ---- products of few rows -------------------------------------------------------------------

constexpr int kMaxM = LLADA_QUANTIZED_MAX_M, kTileN = LLADA_QUANTIZED_TILE_N;
constexpr int kThreads = LLADA_QUANTIZED_THREADS;
// Threads that copy the weight; all others copy x.
constexpr int kWeightThreads = 64;
constexpr int kWarpsN = kTileN / 16, kWarpsK = kThreads / 32 / kWarpsN;
static_assert(kWarpsK * kGroup == kStep, "a warp takes one group of each step");
constexpr int kXStages = 3;
constexpr int kXChunks = kStep / 8;  // chunks of 8 bf16
// Columns of y in a row of shared memory: four more spread the sums over the banks.
constexpr int kSumPitch = kTileN + 4;

template <typename Format, int WEIGHT_STAGES, int SHARED_BYTES>
struct SkinnyMatmul {
  static constexpr int kPlanes = kStep / Format::kChunkCodes;
  // Eight lanes copy the planes of one row, or of two.
  static constexpr int kPlaneBytes = kTileN * kChunkBytes + 8 / kPlanes * kChunkBytes;
  static constexpr int kMultiplierBytes = Format::kHasMultipliers ? kTileN * kGroups : 0;
  static constexpr int kWeightBytes = kPlanes * kPlaneBytes + kMultiplierBytes;
  static constexpr int kXBytes = kMaxM * kStep * 2;
  static constexpr int kSumBytes = kWarpsK * kMaxM * kSumPitch * 4;
  static_assert(WEIGHT_STAGES * kWeightBytes + kXStages * kXBytes == SHARED_BYTES,
                "the launch plan's shared memory");
  static_assert(kSumBytes <= SHARED_BYTES, "sums are exchanged where the stages were");
  static_assert(kWeightBytes % 16 == 0, "x follows the stages of the weight");

  // Starts copying a step of the weight's rows `first..first + 32`; called by warps 0 and 1.
  static __device__ __forceinline__ void load_weight(uint8_t* target,
                                                     const LladaQuantizedMatmulArgs& args,
                                                     int first, int step) {
    const LladaPackedCodes& weight = args.weight;
    constexpr int kCopies = kTileN * kPlanes;
    static_assert(kCopies % kWeightThreads == 0, "all threads copy the same number of chunks");
#pragma unroll
    for (int i = 0; i < kCopies / kWeightThreads; i++) {
      const int at = static_cast<int>(threadIdx.x) + i * kWeightThreads;
      const int row = at / kPlanes, plane = at % kPlanes;
      const bool exists = first + row < args.n;
      const int64_t chunk =
          (static_cast<int64_t>(first + row) * weight.steps + step) * kPlanes + plane;
      cp_async_16(target + plane * kPlaneBytes + row * kChunkBytes,
                  weight.codes + (exists ? chunk * kChunkBytes : 0), exists);
    }
    if (Format::kHasMultipliers && threadIdx.x < kMultiplierBytes / kChunkBytes) {
      const int64_t at = (static_cast<int64_t>(step) * weight.padded_rows + first) * kGroups;
      const int offset = static_cast<int>(threadIdx.x) * kChunkBytes;
      cp_async_16(target + kPlanes * kPlaneBytes + offset, weight.multipliers + at + offset, true);
    }
  }

  static __device__ __forceinline__ int x_offset(int row, int chunk) {
    return row * kStep + (chunk ^ (row % 8)) * 8;
  }

  // Starts copying a step of x, zeros up to a multiple of 16 rows; called by warps 2 to 7.
  static __device__ __forceinline__ void load_x(__nv_bfloat16* target,
                                                const LladaQuantizedMatmulArgs& args, int step) {
    const __nv_bfloat16* x = reinterpret_cast<const __nv_bfloat16*>(args.x);
    const int rows = (args.m + 15) / 16 * 16;
    for (int at = static_cast<int>(threadIdx.x) - kWeightThreads; at < rows * kXChunks;
         at += kThreads - kWeightThreads) {
      const int row = at / kXChunks, chunk = at % kXChunks;
      const bool exists = row < args.m;
      const int64_t source =
          (static_cast<int64_t>(row) * args.weight.steps + step) * kStep + chunk * 8;
      cp_async_16(target + x_offset(row, chunk), x + (exists ? source : 0), exists);
    }
  }

  // Two steps of 16 columns of this warp's 16 rows of the weight, as operands of mma.sync.
  static __device__ __forceinline__ void weight_operands(uint32_t (&left)[2][4],
                                                         const uint8_t* stage) {
    constexpr int kWordPairs = Format::kChunkCodes / kWords / 2;
    constexpr int kChunksOfGroup = kGroup / Format::kChunkCodes;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int group = warp / kWarpsN, row = warp % kWarpsN * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int at = row + 8 * half;
      int8_t multiplier = 0;
      if (Format::kHasMultipliers) {
        multiplier = static_cast<int8_t>(stage[kPlanes * kPlaneBytes + at * kGroups + group]);
      }
      const typename Format::Scaling scaling = Format::scaling(multiplier);
#pragma unroll
      for (int chunk = 0; chunk < kChunksOfGroup; chunk++) {
        const uint8_t* plane = stage + (group * kChunksOfGroup + chunk) * kPlaneBytes;
        uint32_t pairs[kWordPairs];
        Format::widen(pairs, *reinterpret_cast<const uint32_t*>(plane + at * kChunkBytes + lane % 4 * 4),
                      scaling);
#pragma unroll
        for (int i = 0; i < kWordPairs; i++) {
          const int pair = chunk * kWordPairs + i;
          left[pair / 2][pair % 2 * 2 + half] = pairs[i];
        }
      }
    }
  }

  static __device__ __forceinline__ void multiply(float (&sums)[kMaxM / 8][4], const uint8_t* weight,
                                                  const __nv_bfloat16* x, int m) {
    const int lane = threadIdx.x % 32, group = static_cast<int>(threadIdx.x) / 32 / kWarpsN;
    uint32_t left[2][4];
    weight_operands(left, weight);
#pragma unroll
    for (int step = 0; step < 2; step++) {
#pragma unroll
      for (int i = 0; i < kMaxM / 16; i++) {
        if (16 * i < m) {
          // Matrices: lower and upper eight k of rows 0-7 of x, then of rows 8-15.
          const int row = 16 * i + lane / 16 * 8 + lane % 8;
          const int chunk = group * (kGroup / 8) + 2 * step + lane / 8 % 2;
          uint32_t right[4];
          ldmatrix_x4(right, x + x_offset(row, chunk));
          mma_16816(sums[2 * i], left[step], right[0], right[1]);
          mma_16816(sums[2 * i + 1], left[step], right[2], right[3]);
        }
      }
    }
  }

  static __device__ __forceinline__ void run(const LladaQuantizedMatmulArgs& args) {
    extern __shared__ __align__(128) uint8_t shared[];
    uint8_t* weight = shared;
    __nv_bfloat16* x = reinterpret_cast<__nv_bfloat16*>(shared + WEIGHT_STAGES * kWeightBytes);
    const int first = static_cast<int>(blockIdx.x) * kTileN, steps = args.weight.steps;
    const bool copies_weight = threadIdx.x < kWeightThreads;
    // A group of copies per step, empty after the last: so the waits below count right.
    const auto load = [&](int i, int ahead) {
      const int step = i + ahead;
      if (step < steps) {
        if (copies_weight) {
          load_weight(weight + step % WEIGHT_STAGES * kWeightBytes, args, first, step);
        } else {
          load_x(x + step % kXStages * (kXBytes / 2), args, step);
        }
      }
      cp_async_commit();
    };
    const int ahead = copies_weight ? WEIGHT_STAGES - 1 : kXStages - 1;
    for (int i = 0; i < ahead; i++) load(0, i);

    float sums[kMaxM / 8][4] = {};
    for (int i = 0; i < steps; i++) {
      if (copies_weight) {
        cp_async_wait<WEIGHT_STAGES - 2>();
      } else {
        cp_async_wait<kXStages - 2>();
      }
      // All copies of step i have landed, and all warps have finished step i - 1, whose place the
      // next copies take.
      __syncthreads();
      load(i, ahead);
      multiply(sums, weight + i % WEIGHT_STAGES * kWeightBytes, x + i % kXStages * (kXBytes / 2),
               args.m);
    }
    cp_async_wait<0>();
    __syncthreads();
    write(args, reinterpret_cast<float*>(shared), sums, first);
  }

  // Adds the four sums of each element, in order, and scales them.
  static __device__ __forceinline__ void write(const LladaQuantizedMatmulArgs& args, float* shared,
                                               const float (&sums)[kMaxM / 8][4], int first) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* own = shared + warp / kWarpsN * (kMaxM * kSumPitch) + warp % kWarpsN * 16;
#pragma unroll
    for (int j = 0; j < kMaxM / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        own[(8 * j + lane % 4 * 2 + e % 2) * kSumPitch + lane / 4 + e / 2 * 8] = sums[j][e];
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < args.m * kTileN; at += kThreads) {
      const int row = at / kTileN, column = at % kTileN;
      if (first + column >= args.n) continue;
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kWarpsK; i++) sum += shared[(i * kMaxM + row) * kSumPitch + column];
      sum *= args.scales[first + column];
      float* y = args.y + row * args.y_row_stride + first + column;
      *y = args.accumulate != 0 ? *y + sum : sum;
    }
  }
};

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_pack_codes_fwd_int8(const LladaPackCodesArgs args) {
  llada::pack_codes<llada::Int8>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_pack_codes_fwd_int4(const LladaPackCodesArgs args) {
  llada::pack_codes<llada::Int4>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_dequantize_fwd_int8(const LladaDequantizeArgs args) {
  llada::dequantize<llada::Int8>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_dequantize_fwd_int4(const LladaDequantizeArgs args) {
  llada::dequantize<llada::Int4>(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_rotate_fwd_bf16(const LladaRotateArgs args) {
  llada::rotate(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_quantized_matmul_fwd_int8(const LladaQuantizedMatmulArgs args) {
  llada::SkinnyMatmul<llada::Int8, 8, LLADA_QUANTIZED_INT8_SHARED>::run(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_quantized_matmul_fwd_int4(const LladaQuantizedMatmulArgs args) {
  llada::SkinnyMatmul<llada::Int4, 12, LLADA_QUANTIZED_INT4_SHARED>::run(args);
}
