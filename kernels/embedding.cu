// Row lookup and its gradient.
//
//   forward   y[i, c] = table[ids[i], c]
//   backward  dtable[id, c] += sum of dy[i, c] over the i with ids[i] = id, in ascending order
//
// Layout: contiguous; the table is f32 or bf16, all else f32; 128-bit accesses if addresses and
//   widths allow, else single elements.
// Threads: both walk over tiles of rows. In the backward kernel a row of threads owns a segment:
//   rows of dy that the host has sorted by id. The host splits the many positions of a frequent
//   id (half of a batch of masks, say) into several segments whose sums, rows of scratch, the same
//   kernel adds up in a second launch.
// Accumulation: f32, one row after the other, starting from the row of dtable.
// Bytes: forward 8 per element (6 from bf16); backward 4 per element of dy and 8 per element of a
//   row of dtable that is touched. FLOPs: backward 1 per element. Bound by memory.
// Deterministic: yes, and without atomics: every row of dtable has one owner.
#include "load128.cuh"

namespace llada {

template <int N, typename T>
__device__ __forceinline__ void lookup(const LladaEmbeddingArgs& args, const T* table) {
  const RowTile tile(args.lanes_log2);
  tile.for_each_row(args.n, [&](int64_t row) {
    const T* from = table + args.ids[row] * args.d;
    float* to = args.y + row * args.d;
    tile.for_each_column<N>(args.d, [&](int64_t column) {
      float x[N];
      load(from + column, x);
      store(to + column, x);
    });
  });
}

template <int N>
__device__ __forceinline__ void segment_sum(const LladaSegmentSumArgs& args) {
  const RowTile tile(args.lanes_log2);
  tile.for_each_row(args.segments, [&](int64_t segment) {
    const uint32_t start = args.starts[segment], end = args.starts[segment + 1];
    float* to = args.y + args.targets[segment] * args.d;
    tile.for_each_column<N>(args.d, [&](int64_t column) {
      float sum[N] = {};
      if (args.accumulate != 0) load(to + column, sum);
      // Loads of several rows are in flight while the sums wait for each other.
#pragma unroll 4
      for (uint32_t k = start; k < end; k++) {
        float x[N];
        load(args.x + args.order[k] * args.d + column, x);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] += x[i];
      }
      store(to + column, sum);
    });
  });
}

}  // namespace llada

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_embedding_fwd_f32(const LladaEmbeddingArgs args) {
  const float* table = static_cast<const float*>(args.table);
  if (args.d % 4 == 0 && llada::aligned128(table, args.y)) {
    llada::lookup<4>(args, table);
  } else {
    llada::lookup<1>(args, table);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_embedding_fwd_bf16(const LladaEmbeddingArgs args) {
  const LladaBf16* table = static_cast<const LladaBf16*>(args.table);
  if (args.d % 8 == 0 && llada::aligned128(table, args.y)) {
    llada::lookup<8>(args, table);
  } else {
    llada::lookup<1>(args, table);
  }
}

extern "C" __global__ void __launch_bounds__(LLADA_ELEMENTWISE_THREADS)
    llada_embedding_bwd_f32(const LladaSegmentSumArgs args) {
  if (args.d % 4 == 0 && llada::aligned128(args.x, args.y)) {
    llada::segment_sum<4>(args);
  } else {
    llada::segment_sum<1>(args);
  }
}
