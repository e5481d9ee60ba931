// Fixtures for arithmetic, control flow, warp-wide instructions, atomics and variables.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

struct Args {
  const float* x;
  double* y;
  int n;
  float table[16];
};

__constant__ float constants[4] = {1.0f, 2.0f, 4.0f, 8.0f};
__device__ unsigned int counter = 5;
__device__ const unsigned char* words[2] = {(const unsigned char*)"ab", (const unsigned char*)"cd"};

__device__ __noinline__ float pick(float a, Args args) { return a * args.table[(int)a & 15] + args.n; }

// One column of results per function; the test recomputes each in f64.
extern "C" __global__ void math(Args args) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= args.n) return;
  float v = args.x[i];
  double d = v;
  double* y = args.y + i;
  int n = args.n;
  y[0 * n] = expf(v);
  y[1 * n] = logf(v);
  y[2 * n] = sinf(v);
  y[3 * n] = cosf(v);
  y[4 * n] = tanhf(v);
  y[5 * n] = powf(v, 1.5f);
  y[6 * n] = erff(v);
  y[7 * n] = rsqrtf(v);
  y[8 * n] = v / 3.1f;
  y[9 * n] = exp(d);
  y[10 * n] = log(d);
  y[11 * n] = sqrt(d) / 1.7;
  y[12 * n] = pow(d, 3.3);
  y[13 * n] = sin(d);
  y[14 * n] = __expf(v);
  y[15 * n] = pick(v, args);
  y[16 * n] = constants[i & 3];
  y[17 * n] = words[i & 1][(i >> 1) & 1];
  y[18 * n] = fmaxf(v, 2.0f) - fminf(v, 2.0f);
  y[19 * n] = sin(d * 1e9);
  y[20 * n] = sinf(v * 1e7f);
}

extern "C" __global__ void integers(const int* a, const int* b, long long* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int p = a[i], q = b[i];
  unsigned int u = p, w = q;
  unsigned long long uu = ((unsigned long long)u << 32) | w, ww = ((unsigned long long)w << 20) | u;
  int s = q & 31;
  long long* o = y + i;
  o[0 * n] = (long long)p + q;
  o[1 * n] = p - q;
  o[2 * n] = p * q;
  o[3 * n] = __mulhi(p, q);
  o[4 * n] = __umulhi(u, w);
  o[5 * n] = q ? p / q : 0;
  o[6 * n] = q ? p % q : 0;
  o[7 * n] = w ? u / w : 0;
  o[8 * n] = w ? u % w : 0;
  o[9 * n] = (u << s) ^ (u >> s);
  o[10 * n] = p >> s;
  o[11 * n] = __clz(p) + 100 * __popc(p) + 10000 * __ffs(q);
  o[12 * n] = __brev(u);
  o[13 * n] = __byte_perm(u, w, 0x5140 + s);
  o[14 * n] = __funnelshift_l(u, w, s);
  o[15 * n] = (long long)(uu / (ww | 1));
  o[16 * n] = (long long)(uu % (ww | 1));
  o[17 * n] = (long long)__umul64hi(uu, ww);
  o[18 * n] = __clzll(uu) + 100 * __popcll(ww);
  o[19 * n] = min(p, q) + 3LL * max(p, q) + (long long)min(u, w);
  o[20 * n] = (short)p * (short)q + (short)(p >> 3);
  o[21 * n] = (signed char)p + (unsigned char)q;
  o[22 * n] = (u & 0x0f0f0f0f) | (w & 0xf0f0f0f0);
  o[23 * n] = abs(p) + (u > w ? 1 : 2);
  o[24 * n] = (long long)(uu << s) ^ (long long)(ww >> s) ^ ((long long)ww >> s);
  o[25 * n] = (long long)(float)p + (long long)(float)u;
  o[26 * n] = (long long)((double)uu * 0.5);
  o[27 * n] = __float2int_rn(p * 0.37f) + __float2int_rd(q * 0.11f);
  unsigned int lo, hi, c0, c1;
  asm("add.cc.u32 %0, %2, %3; addc.u32 %1, %4, 7;" : "=r"(lo), "=r"(hi) : "r"(u), "r"(w), "r"(u));
  asm("sub.cc.u32 %0, %2, %3; subc.u32 %1, %4, 7;" : "=r"(c0), "=r"(c1) : "r"(u), "r"(w), "r"(u));
  o[28 * n] = (long long)(((unsigned long long)hi << 32) | lo);
  o[29 * n] = (long long)(((unsigned long long)c1 << 32) | c0);
}

// Divergence of every kind: nested branches, a loop of another length in each lane, a switch, an early exit.
extern "C" __global__ void diverge(int* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int v = 0;
  for (int k = 0; k < (i & 15); k++) {
    if (k & 1) v += k * i; else { if (i & 2) v ^= k; else v -= k; }
    if (v > 1000) break;
  }
  switch (i % 7) {
    case 0: v += 1; break;
    case 1: v *= 3; break;
    case 2: v ^= 7; break;
    case 3: v /= 5; break;
    case 4: v = ~v; break;
    case 5: v <<= 1; break;
    default: v -= 2;
  }
  if (i % 5 == 3) { y[i] = v; return; }
  y[i] = v * 2;
}

// The sum of a block, by shuffles and shared memory; also the warp-wide votes.
extern "C" __global__ void reduce(const float* x, float* sums, unsigned int* votes, int n) {
  __shared__ float part[32];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  float v = i < n ? x[i] : 0.0f;
  unsigned int ballot = __ballot_sync(~0u, v > 0.5f);
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  if ((t & 31) == 0) part[t >> 5] = v;
  __syncthreads();
  if (t < 32) {
    v = t < blockDim.x / 32 ? part[t] : 0.0f;
    for (int o = 16; o; o >>= 1) v += __shfl_down_sync(~0u, v, o);
    if (t == 0) sums[blockIdx.x] = v;
  }
  int lane = t & 31;
  int up = __shfl_up_sync(~0u, lane, 3), idx = __shfl_sync(~0u, lane, 5, 8);
  unsigned int same = __match_any_sync(~0u, lane / 5);
  int sum = __reduce_add_sync(~0u, lane);
  if (i < n) votes[i] = ballot ^ (up << 8) ^ (idx << 16) ^ same ^ (sum * 65537u) ^ (__any_sync(~0u, lane == 40) ? 1 : 0);
}

extern "C" __global__ void atomics(unsigned int* u, unsigned long long* l, float* f, int n) {
  __shared__ unsigned int bins[8];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  if (t < 8) bins[t] = 0;
  __syncthreads();
  if (i < n) {
    atomicAdd(&bins[i & 7], 1u);
    atomicAdd(u, 1u);
    atomicMax(u + 1, (unsigned int)i);
    atomicMin((int*)u + 2, -i);
    atomicXor(u + 3, (unsigned int)i);
    atomicCAS(u + 4, 0u, 77u);
    atomicAdd(l, (unsigned long long)i << 20);
    atomicAdd(f, 0.5f);
    atomicAdd(&counter, 2u);
  }
  __syncthreads();
  if (t < 8) atomicAdd(u + 8 + t, bins[t]);
  if (i == 0) u[5] = constants[2] == 4.0f;
}

extern "C" __global__ void read_counter(unsigned int* y) { *y = counter; }

// An array in local memory, because its index is not known.
extern "C" __global__ void local_array(const int* x, int* y) {
  int t = threadIdx.x, a[32];
  for (int k = 0; k < 32; k++) a[k] = x[(t + k) & 31] * k;
  int s = 0;
  for (int k = 0; k < 32; k++) s += a[x[k] & 31];
  y[t] = s;
}

extern "C" __global__ void halves(const float* x, float* y, int n) {
  int i = threadIdx.x;
  __nv_bfloat16 b = __float2bfloat16(x[i]), c = __float2bfloat16(x[i + 1]);
  __half h = __float2half(x[i]), k = __float2half(x[i + 1]);
  y[i] = __bfloat162float(b);
  y[n + i] = __half2float(h);
  y[2 * n + i] = __bfloat162float(__hadd(b, c));
  y[3 * n + i] = __half2float(__hmul(h, k));
  y[4 * n + i] = __bfloat162float(__hfma(b, c, b));
  y[5 * n + i] = __half2float(__hfma(h, k, h));
  __nv_bfloat162 p = __floats2bfloat162_rn(x[i], x[i + 1]);
  y[6 * n + i] = __low2float(__hmul2(p, p)) + __high2float(__hadd2(p, p));
  y[7 * n + i] = __half2float(hexp(h)) + (float)__hlt(h, k);
}

extern "C" __global__ void saxpy(const float* x, float* y, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}
