// placeholder, replaced by the op
#include "llada_kernels.h"
extern "C" __global__ void llada_rms_norm_fwd_f32(const LladaRmsNormArgs args) {
  if (args.rows == 0) return;
}
