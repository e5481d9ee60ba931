// Kernels with one bug each, which check mode has to find.
#include <stdint.h>

extern "C" __global__ void missing_barrier(float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = threadIdx.x;  // also the other half
  y[threadIdx.x] = s[threadIdx.x ^ 32];  // missing __syncthreads
}

extern "C" __global__ void with_barrier(float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x ^ 32];
}

extern "C" __global__ void shared_out_of_bounds(float* y, int n) {
  extern __shared__ float s[];
  s[threadIdx.x + n] = 1.0f;  // beyond the end
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void fill(float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = i;  // out of bounds for a wrong n
}

extern "C" __global__ void copy(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}

extern "C" __global__ void uninitialized_shared(float* y) {
  __shared__ float s[64];
  if (threadIdx.x < 32) s[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];  // the upper half was never written
}

extern "C" __global__ void misaligned(const float* x, float* y) {
  float4 v = *(const float4*)(x + 1);  // 16 bytes at an address that 4 divides
  y[threadIdx.x] = v.x + v.w;
}

extern "C" __global__ void divergent_barrier(float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = 1.0f;
  if (threadIdx.x < 40) asm volatile("bar.sync 0;" ::: "memory");  // 24 threads of the last warp pass by
  y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void deadlocked_shuffle(float* y) {
  float v = threadIdx.x;
  if (threadIdx.x < 16) {
    asm volatile("shfl.sync.bfly.b32 %0, %0, 1, 31, -1;" : "+f"(v));  // names lanes that wait at the barrier
  } else {
    asm volatile("bar.sync 0;" ::: "memory");
  }
  y[threadIdx.x] = v;
}

extern "C" __global__ void asserts(int* y) {
  if (threadIdx.x == 7) asm volatile("trap;");
  y[threadIdx.x] = 1;
}
