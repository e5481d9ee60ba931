// Codes of weights, and products with them, for the kernels of quantized.cu and moe.cu; see the head
// of quantized.cu.
#pragma once

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

using SkinnyInt8 = SkinnyMatmul<Int8, 8, LLADA_QUANTIZED_INT8_SHARED>;
using SkinnyInt4 = SkinnyMatmul<Int4, 12, LLADA_QUANTIZED_INT4_SHARED>;

}  // namespace llada
