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

#include "quantized.cuh"

namespace llada {

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
  llada::SkinnyInt8::run(args);
}

extern "C" __global__ void __launch_bounds__(LLADA_QUANTIZED_THREADS)
    llada_quantized_matmul_fwd_int4(const LladaQuantizedMatmulArgs args) {
  llada::SkinnyInt4::run(args);
}
