// The only inline PTX of the kernels: asynchronous copies to shared memory, matrix loads, and
// tensor-core products of sm_80 and newer. Each wrapper is one instruction.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

namespace llada {

// Address of shared memory as the instructions below take it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The same pointer, which the compiler keeps as a sum instead of computing it anew for every use.
template <typename T>
__device__ __forceinline__ T* kept(T* pointer) {
  asm("" : "+l"(pointer));
  return pointer;
}

// Starts a copy of the first `bytes` of 16 bytes from global to shared memory, and zeros in place of
// the others. `source` must be a readable address even for 0. Both are aligned to 16 bytes.
__device__ __forceinline__ void cp_async_first(void* target, const void* source, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(target)),
               "l"(source), "r"(bytes)
               : "memory");
}

// The same with all 16, or only zeros if `valid` is false.
__device__ __forceinline__ void cp_async_16(void* target, const void* source, bool valid) {
  cp_async_first(target, source, valid ? 16 : 0);
}

// Starts a copy of 4 bytes.
__device__ __forceinline__ void cp_async_4(void* target, const void* source) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(shared_address(target)),
               "l"(source)
               : "memory");
}

// Writes 128 bits to global memory, aligned to 16 bytes. The compiler splits some assignments of
// a `uint4` into four instructions, each of which touches all sectors that the whole would.
__device__ __forceinline__ void store_128(void* target, uint4 v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(
                   __cvta_generic_to_global(target)),
               "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most N of this thread's groups are in flight. A barrier must follow before
// another thread's copies are read.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// Loads four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix
// i / 8. Lane l gets elements (l / 4, 2 (l % 4)) and the next one of each matrix.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// Both by the address in shared memory, for kernels that keep addresses instead of pointers.
__device__ __forceinline__ void ldmatrix_x4_at(uint32_t (&out)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans_at(uint32_t (&out)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}

// A copy of 16 bytes to an address in shared memory, whatever is there.
__device__ __forceinline__ void cp_async_16_at(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(target), "l"(source)
               : "memory");
}

// d[16, 8] += a[16, 16] b[16, 8], f32 sums. Lane l holds of d the elements (l / 4, 2 (l % 4) + i)
// for i = 0, 1 and those 8 rows below for i = 2, 3.
__device__ __forceinline__ void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                          uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// a b + c of two pairs of bf16, rounded once.
__device__ __forceinline__ uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// 2^x to about 2 units in the last place of f32; subnormal results are zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two values rounded to bf16, the first in the lower half.
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two values of bf16 as f32.
__device__ __forceinline__ void unpack_pair(uint32_t pair, float& low, float& high) {
  low = __uint_as_float(pair << 16);
  high = __uint_as_float(pair & 0xffff0000u);
}

}  // namespace llada
