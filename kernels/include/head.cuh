// A tile of the logits of an LM head, computed into shared memory; the caller reduces its rows.
//
// logits[r, v] = sum_d hidden[r, d] head[v, d], for 128 vocabulary entries and kRows rows.
//
// A block owns the tile. The axis d is cut into slabs of 128 bytes per row, which are copied to
// shared memory asynchronously, kStages - 1 of them ahead; chunk c of 16 bytes of row r lies at
// place c ^ (r % 8), so that neither copies nor reads meet in a bank. With bf16 operands a warp
// multiplies 32 entries by up to 64 rows on tensor cores; with f32 operands a thread multiplies
// 8 entries by kRows / 8 rows. Every logit is summed in f32 in the order of d, whatever kRows is:
// the logits of a row do not depend on the other rows of the batch.
//
// Logits that another kernel has computed, as of a head of integers, are read instead: that is a
// tile like the others for whoever reduces it.
//
// Where guidance asks for two logits, the first half of the rows of the tile are conditional and
// the second half are the unconditional ones of the same rows.
#pragma once

#include <math_constants.h>

#include <type_traits>

#include "llada_kernels.h"
#include "mma.cuh"
#include "reduce.cuh"

namespace llada {

constexpr int kHeadTile = LLADA_HEAD_TILE;
constexpr int kChunks = LLADA_HEAD_SLAB_BYTES / 16;
constexpr int kLogitStride = LLADA_HEAD_LOGIT_STRIDE;
// Logits of a row that one lane has: four neighbors.
constexpr int kLaneLogits = kHeadTile / 32;

static_assert(kChunks == 8 && kHeadTile == 128, "the layouts below are made for these");

// In the place of a type of operands: `hidden` and `unconditional` hold logits without their bias,
// [rows, len] in f32.
struct StoredLogits {};

// Shape of a block: T is __nv_bfloat16, float or StoredLogits.
template <typename T, int kRowsOfTile>
struct HeadShape {
  static constexpr int kRows = kRowsOfTile;
  static constexpr int kWarps = kRows == 128 ? 8 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = kRows >= 64 ? 3 : 4;
  static constexpr int kStageChunks = (kHeadTile + kRows) * kChunks;
  static constexpr int kSlab = LLADA_HEAD_SLAB_BYTES / static_cast<int>(sizeof(T));
};

// How many rows of a tile are those of the hidden states; with guidance the others are those of
// the unconditional ones.
template <int kRows>
__device__ __forceinline__ int rows_per_state(const LladaHead& args) {
  return args.unconditional != nullptr ? kRows / 2 : kRows;
}

// Rows of a tile in memory: the first `half` of its rows are rows first .. of `base`, the others
// those of `second`.
template <typename T>
struct TileSource {
  const T* base;
  const T* second;
  int64_t stride;
  int64_t first;
  int64_t n_rows;
  int half;

  // A row of the tile; the last one in the place of those that are missing, whose logits nobody
  // reads.
  __device__ __forceinline__ const T* row(int r) const {
    const bool is_second = r >= half;
    const int64_t at = first + (is_second ? r - half : r);
    return (is_second ? second : base) + min(at, n_rows - 1) * stride;
  }

  // Whether its rows start at 16 bytes. Those of bf16 do, see LladaHead.
  __device__ __forceinline__ bool is_aligned() const {
    const uint64_t bits = reinterpret_cast<uint64_t>(base) | reinterpret_cast<uint64_t>(second) |
                          static_cast<uint64_t>(stride) * sizeof(T);
    return sizeof(T) == 2 || bits % 16 == 0;
  }
};

// Loads slabs of kRows rows: thread t has chunk t % 8 of row t / 8, and of every kStep-th after it.
template <int kRows, int kThreads, typename T>
struct SlabLoader {
  static constexpr int kStep = kThreads / kChunks;
  static constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  static_assert(kStep % 8 == 0 && kRows % kStep == 0, "all rows of a thread swap chunks alike");
  const TileSource<T> source;
  const T* rows[kRows / kStep];
  bool is_aligned;

  __device__ explicit SlabLoader(const TileSource<T>& source)
      : source(source), is_aligned(source.is_aligned()) {
#pragma unroll
    for (int i = 0; i < kRows / kStep; i++) {
      rows[i] = source.row(static_cast<int>(threadIdx.x) / kChunks + i * kStep);
    }
  }

  // Zeros past the end of the axis d.
  __device__ __forceinline__ void load(uint4* stage, int d, int slab) const {
    const int chunk = threadIdx.x % kChunks, first = threadIdx.x / kChunks;
    const int k = (slab * kChunks + chunk) * kElements;
    uint4* target = stage + first * kChunks + (chunk ^ (first % 8));
    if (is_aligned) {
      const bool is_there = k < d;
      const int offset = is_there ? k : 0;
#pragma unroll
      for (int i = 0; i < kRows / kStep; i++) {
        cp_async_16(target + i * kStep * kChunks, rows[i] + offset, is_there);
      }
      return;
    }
#pragma unroll 1
    for (int i = 0; i < kRows / kStep; i++) {
      const T* row = source.row(first + i * kStep);
      T* elements = reinterpret_cast<T*>(target + i * kStep * kChunks);
      for (int e = 0; e < kElements; e++) {
        elements[e] = k + e < d ? row[k + e] : static_cast<T>(0.0f);
      }
    }
  }
};

// The sums of a thread, and how it adds a slab to them and puts them down.
template <typename T, int kRows>
struct HeadSums;

// bf16: warp w has the entries 32 (w % 4) .. + 32 and, of 128 rows, the half w / 4.
template <int kRows>
struct HeadSums<__nv_bfloat16, kRows> {
  static constexpr int kWarpRows = kRows < 64 ? kRows : 64;
  float sums[2][kWarpRows / 8][4] = {};

  __device__ __forceinline__ void add(const uint4* stage) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int entry = 32 * (warp % 4) + lane % 16;
    const int row = kHeadTile + kWarpRows * (warp / 4) + lane % 8 + 8 * (lane / 16);
#pragma unroll
    for (int step = 0; step < 4; step++) {
      const int entry_chunk = 2 * step + lane / 16, row_chunk = 2 * step + (lane / 8) % 2;
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        ldmatrix_x4(a[i], stage + (entry + 16 * i) * kChunks + (entry_chunk ^ (entry % 8)));
      }
#pragma unroll
      for (int j = 0; j < kWarpRows / 16; j++) {
        uint32_t b[4];
        ldmatrix_x4(b, stage + (row + 16 * j) * kChunks + (row_chunk ^ (row % 8)));
#pragma unroll
        for (int i = 0; i < 2; i++) {
          mma_16816(sums[i][2 * j], a[i], b[0], b[1]);
          mma_16816(sums[i][2 * j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void store(float* logits) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int entry = 32 * (warp % 4) + lane / 4;
    const int row = kWarpRows * (warp / 4) + 2 * (lane % 4);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int j = 0; j < kWarpRows / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          logits[(row + 8 * j + e % 2) * kLogitStride + entry + 16 * i + 8 * (e / 2)] =
              sums[i][j][e];
        }
      }
    }
  }
};

// f32: thread t has the entries t % 16 + 16 i and the rows t / 16 + 8 j.
template <int kRows>
struct HeadSums<float, kRows> {
  static constexpr int kEntries = kHeadTile / 16;
  float sums[kEntries][kRows / 8] = {};

  __device__ __forceinline__ void add(const uint4* stage) {
    const int entry = threadIdx.x % 16, row = threadIdx.x / 16;
    const float4* head = reinterpret_cast<const float4*>(stage);
    const float4* hidden = head + kHeadTile * kChunks;
#pragma unroll 2
    for (int chunk = 0; chunk < kChunks; chunk++) {
      float4 a[kEntries];
#pragma unroll
      for (int i = 0; i < kEntries; i++) {
        a[i] = head[(entry + 16 * i) * kChunks + (chunk ^ (entry % 8))];
      }
#pragma unroll
      for (int j = 0; j < kRows / 8; j++) {
        const float4 b = hidden[(row + 8 * j) * kChunks + (chunk ^ (row % 8))];
#pragma unroll
        for (int i = 0; i < kEntries; i++) {
          float sum = sums[i][j];
          sum = fmaf(a[i].x, b.x, sum);
          sum = fmaf(a[i].y, b.y, sum);
          sum = fmaf(a[i].z, b.z, sum);
          sums[i][j] = fmaf(a[i].w, b.w, sum);
        }
      }
    }
  }

  __device__ __forceinline__ void store(float* logits) const {
    const int entry = threadIdx.x % 16, row = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < kEntries; i++) {
#pragma unroll
      for (int j = 0; j < kRows / 8; j++) {
        logits[(row + 8 * j) * kLogitStride + entry + 16 * i] = sums[i][j];
      }
    }
  }
};

// Where the rows of a tile that are no vocabulary entries come from.
template <typename T, int kRows>
__device__ __forceinline__ TileSource<T> row_source(const LladaHead& args, int first_row) {
  return {static_cast<const T*>(args.hidden),
          static_cast<const T*>(args.unconditional),
          args.hidden_stride,
          first_row,
          args.rows,
          rows_per_state<kRows>(args)};
}

// Computes a tile into the first chunks of `shared`, which holds kStages * kStageChunks of them.
template <typename T, typename Shape>
__device__ __forceinline__ void multiply_tile(const LladaHead& args, uint4* shared,
                                              int64_t first_entry, int first_row) {
  static_assert(Shape::kRows * kLogitStride * 4 <= Shape::kStages * Shape::kStageChunks * 16,
                "the logits take the place of the slabs");
  const SlabLoader<kHeadTile, Shape::kThreads, T> head(
      {static_cast<const T*>(args.head), nullptr, args.head_stride, first_entry, args.len,
       kHeadTile});
  const SlabLoader<Shape::kRows, Shape::kThreads, T> rows(
      row_source<T, Shape::kRows>(args, first_row));
  const auto load = [&](int slab, int stage) {
    uint4* target = shared + stage * Shape::kStageChunks;
    head.load(target, args.d, slab);
    rows.load(target + kHeadTile * kChunks, args.d, slab);
  };
  const int slabs = (args.d + Shape::kSlab - 1) / Shape::kSlab;
  HeadSums<T, Shape::kRows> sums;
#pragma unroll
  for (int slab = 0; slab < Shape::kStages - 1; slab++) {
    if (slab < slabs) load(slab, slab);
    cp_async_commit();
  }
  int stage = 0;
  for (int slab = 0; slab < slabs; slab++) {
    cp_async_wait<Shape::kStages - 2>();
    // This slab is there for all, and all are done with the one whose place the next load takes.
    __syncthreads();
    const int ahead = slab + Shape::kStages - 1;
    if (ahead < slabs) load(ahead, stage == 0 ? Shape::kStages - 1 : stage - 1);
    cp_async_commit();
    sums.add(shared + stage * Shape::kStageChunks);
    stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
  }
  cp_async_wait<0>();
  __syncthreads();
  sums.store(reinterpret_cast<float*>(shared));
}

// Reads a tile of logits that are in memory.
template <typename Shape>
__device__ __forceinline__ void read_tile(const LladaHead& args, float* tile, int64_t first_entry,
                                          int first_row) {
  const auto rows = row_source<float, Shape::kRows>(args, first_row);
  for (int i = threadIdx.x; i < Shape::kRows * kHeadTile; i += Shape::kThreads) {
    const int row = i / kHeadTile, column = i % kHeadTile;
    const int64_t entry = first_entry + column;
    tile[row * kLogitStride + column] = entry < args.len ? rows.row(row)[entry] : 0.0f;
  }
}

// Makes a tile of logits; returns it, [kRows, kLogitStride] in shared memory, when all threads
// see it.
template <typename T, typename Shape>
__device__ __forceinline__ float* head_logits(const LladaHead& args, uint4* shared,
                                              int64_t first_entry, int first_row) {
  float* tile = reinterpret_cast<float*>(shared);
  if constexpr (std::is_same<T, StoredLogits>::value) {
    read_tile<Shape>(args, tile, first_entry, first_row);
  } else {
    multiply_tile<T, Shape>(args, shared, first_entry, first_row);
  }
  __syncthreads();
  return tile;
}

// The place of a lane in a row: four entries from `entry` on, and their bias.
struct LaneLogits {
  float bias[kLaneLogits];
  int64_t entry; // within the part
  int64_t left;  // entries of the part from there on, perhaps none

  __device__ LaneLogits(const LladaHead& args, int64_t first_entry) {
    entry = first_entry + kLaneLogits * static_cast<int>(threadIdx.x % 32);
    left = args.len - entry;
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) {
      const bool is_there = args.bias != nullptr && i < left;
      bias[i] = is_there ? args.bias[args.start + entry + i] : 0.0f;
    }
  }

  // The logits of a row of a tile; -inf past the end of the vocabulary.
  __device__ __forceinline__ void read(const float* row, float (&x)[kLaneLogits]) const {
    const float4 four = *reinterpret_cast<const float4*>(row + kLaneLogits * (threadIdx.x % 32));
    const float values[kLaneLogits] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < kLaneLogits; i++) x[i] = i < left ? values[i] + bias[i] : -CUDART_INF_F;
  }
};

// e^(x - max), and 0 for an x of -inf; NaN for a NaN, whatever the maximum.
__device__ __forceinline__ float exp_below(float x, float max) {
  return x == -CUDART_INF_F ? 0.0f : expf(x - max);
}

// The larger of two, a number over a NaN.
struct MaxNumber {
  template <typename T>
  __device__ static T apply(T a, T b) { return a > b || b != b ? a : b; }
};

}  // namespace llada
