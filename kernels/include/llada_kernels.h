/* Launch interface of the kernels: an argument struct per op, and the constants that both sides
 * of a launch must agree on. Plain C, read by nvcc and, through bindgen, by Rust.
 *
 * Every entry is `extern "C" __global__ void llada_<op>_<fwd|bwd>_<dtype>(const Llada<Op>Args)`.
 * Device addresses are pointers on the device and integers in Rust. Strides and sizes are counted
 * in elements. All tensors are row-major.
 */
#ifndef LLADA_KERNELS_H
#define LLADA_KERNELS_H

#include <stdint.h>

#ifdef __CUDACC__
#define LLADA_PTR(type) type*
#else
#define LLADA_PTR(type) uint64_t
#endif

/* bfloat16 and half precision by their bits, for C. */
typedef uint16_t LladaBf16;
typedef uint16_t LladaF16;

/* ---- rms_norm.cu ------------------------------------------------------------------------- */

/* y[r, c] = x[r, c] weight[c] rstd[r], rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps). */
typedef struct LladaRmsNormArgs {
  LLADA_PTR(const float) x;      /* [rows, d] */
  LLADA_PTR(const float) weight; /* [d] */
  LLADA_PTR(float) y;            /* [rows, d] */
  LLADA_PTR(float) rstd;         /* [rows] */
  int64_t rows;
  int32_t d;
  float eps;
} LladaRmsNormArgs;

#endif
