// A product of matrices with mma.sync, ldmatrix and cp.async: C[m][n] = sum_k A[m][k] B[n][k].
// A tile of 64 by 64 per block of 128 threads, in steps of 32 of k, with two stages.
#include <cuda_bf16.h>
#include <stdint.h>

#ifndef SWIZZLE
#define SWIZZLE 1
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Rows of 64 bytes (32 elements), in chunks of 16; a chunk moves by its row, so that no bank is hit twice.
template <bool swizzle>
__device__ __forceinline__ int place(int row, int chunk) {
  return row * 32 + ((swizzle ? chunk ^ ((row >> 1) & 3) : chunk) * 8);
}

template <bool swizzle, bool wait>
__device__ __forceinline__ void product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  __shared__ __align__(128) __nv_bfloat16 tiles[2][2][64 * 32];
  int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  const __nv_bfloat16* from[2] = {a + (size_t)blockIdx.y * 64 * k, b + (size_t)blockIdx.x * 64 * k};
  auto fetch = [&](int stage, int step) {
    for (int which = 0; which < 2; which++)
      for (int i = t; i < 256; i += 128) {
        int row = i >> 2, chunk = i & 3;
        uint32_t to = shared_address(&tiles[stage][which][place<swizzle>(row, chunk)]);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                     "l"(from[which] + (size_t)row * k + step * 32 + chunk * 8));
      }
    asm volatile("cp.async.commit_group;");
  };
  float acc[8][4] = {};
  int steps = k / 32;
  fetch(0, 0);
  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) fetch((step + 1) & 1, step + 1);
    else asm volatile("cp.async.commit_group;");
    if (wait) asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    const __nv_bfloat16* ta = tiles[step & 1][0];
    const __nv_bfloat16* tb = tiles[step & 1][1];
    for (int kk = 0; kk < 2; kk++) {
      uint32_t ra[4];
      uint32_t at = shared_address(ta + place<swizzle>(warp * 16 + (lane & 15), kk * 2 + (lane >> 4)));
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                   : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(at));
      for (int j = 0; j < 8; j++) {
        uint32_t rb[2];
        uint32_t bt = shared_address(tb + place<swizzle>(j * 8 + (lane & 7), kk * 2 + ((lane >> 3) & 1)));
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(bt));
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
                     : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
      }
    }
    __syncthreads();
  }
  int row = blockIdx.y * 64 + warp * 16 + lane / 4, col = blockIdx.x * 64 + (lane & 3) * 2;
  for (int j = 0; j < 8; j++)
    for (int half = 0; half < 2; half++)
      *(float2*)(c + (size_t)(row + half * 8) * n + col + j * 8) = make_float2(acc[j][half * 2], acc[j][half * 2 + 1]);
}

extern "C" __global__ void gemm(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  product<true, true>(a, b, c, n, k);
}
extern "C" __global__ void gemm_without_swizzle(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  product<false, true>(a, b, c, n, k);
}
extern "C" __global__ void gemm_without_wait(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  product<true, false>(a, b, c, n, k);
}

// Rows of 128 bytes read in columns of 16: 8 lanes on the same banks.
extern "C" __global__ void column_reads(float* y, int swizzle) {
  __shared__ __align__(128) float4 rows[32][8];
  int t = threadIdx.x;
  for (int i = 0; i < 8; i++) rows[t][swizzle ? i ^ (t & 7) : i] = make_float4(t, i, 0, 0);
  __syncwarp();
  float sum = 0;
  for (int i = 0; i < 8; i++) { float4 v = rows[t][swizzle ? i ^ (t & 7) : i]; sum += v.x * v.y; }
  y[t] = sum;
}

// Plain products in f32, to measure speed.
extern "C" __global__ void fma_loop(float* y, int n) {
  float a = threadIdx.x * 1e-3f, b = 0.5f, c = 0.25f, d = 0.125f, x = a;
#pragma unroll 16
  for (int i = 0; i < n; i++) { b = b * x + a; c = c * x + a; d = d * x + b; x = x * 0.5f + 0.25f; }
  y[blockIdx.x * blockDim.x + threadIdx.x] = b + c + d + x;
}
