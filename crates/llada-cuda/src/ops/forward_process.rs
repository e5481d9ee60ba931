//! See `/kernels/forward_process.cu`.

use llada_kernels::args::LladaForwardProcessArgs;
use llada_tensor::{Device, Error, Result, Stream};

use crate::backend::context_of;
use crate::launch::elementwise::count;
use crate::launch::forward_process as plan;

const OP: &str = "forward_process";

/// Arguments of [`forward_process`].
#[derive(Debug, Clone, Copy)]
pub struct ForwardProcessArgs<'a> {
    /// Tokens of all sequences, `[T]`.
    pub ids: &'a [u32],
    /// `[B + 1]` boundaries: sequence `b` is `ids[offsets[b]..offsets[b + 1]]`.
    pub offsets: &'a [usize],
    /// Noise level of each sequence in [0, 1], `[B]`; `None`: drawn independently.
    pub t: Option<&'a [f32]>,
    /// Tokens that may be masked, `[T]` (`None`: all).
    pub maskable: Option<&'a [bool]>,
    /// What a masked token becomes.
    pub mask_token_id: u32,
    /// Seed of all draws.
    pub seed: u64,
    /// Training step: draws of different steps are independent.
    pub step: u64,
}

/// A batch after [`forward_process`].
#[derive(Debug, Clone, PartialEq)]
pub struct Noised {
    /// The tokens with masked ones replaced, `[T]`.
    pub ids: Vec<u32>,
    /// Masking probability of a masked token's sequence, `[T]`; 0 for tokens that stay.
    pub p_mask: Vec<f32>,
}

/// Masks every token of a ragged batch whose draw is below `p(t) = (1 - eps) t + eps`.
///
/// - The draw of token `q` of sequence `b` is `uniform_f32([q, b, step])` of [`Stream::Mask`];
///   without given levels `t` is `uniform_f32([step, step >> 32, b])` of [`Stream::MaskRatio`].
///   What is masked is the same as on the CPU, bit for bit.
///
/// # Errors
/// [`Error::InvalidArgument`] if `device` is no CUDA device, if lengths do not fit, or if a `t` is
/// not in [0, 1]; or if the device fails.
///
/// Source: arXiv 2502.09992 section 2.1; `forward_process` in the reference's GUIDELINES.md.
pub fn forward_process(device: &Device, args: ForwardProcessArgs<'_>) -> Result<Noised> {
    check(&args)?;
    let cx = context_of(OP, device)?;
    let tokens = args.ids.len();
    let offsets = args.offsets.iter().map(|&offset| count(OP, offset));
    let offsets = cx.upload_once(&offsets.collect::<Result<Vec<_>>>()?)?;
    let ids = cx.upload_once(args.ids)?;
    let t = args.t.map(|t| cx.upload_once(t)).transpose()?;
    let maskable = args
        .maskable
        .map(|flags| cx.upload_once(flags))
        .transpose()?;
    let noised = cx.scratch(size_of_val(args.ids))?;
    let p_mask = cx.scratch(tokens * size_of::<f32>())?;
    let kernel_args = LladaForwardProcessArgs {
        ids: ids.pointer(),
        offsets: offsets.pointer(),
        t: t.as_ref().map_or(0, |t| t.pointer()),
        maskable: maskable.as_ref().map_or(0, |flags| flags.pointer()),
        noised: noised.pointer(),
        p_mask: p_mask.pointer(),
        tokens: count(OP, tokens)?,
        sequences: count(OP, args.offsets.len() - 1)?,
        seed: args.seed,
        step: args.step,
        mask_stream: Stream::Mask as u32,
        ratio_stream: Stream::MaskRatio as u32,
        mask_token_id: args.mask_token_id,
        padding: 0,
    };
    let entry = "llada_forward_process_fwd_u32";
    cx.launch(OP, entry, plan::forward_process(tokens)?, &kernel_args)?;
    let mut result = Noised {
        ids: vec![0; tokens],
        p_mask: vec![0.0; tokens],
    };
    cx.download(&noised, &mut result.ids)?;
    cx.download(&p_mask, &mut result.p_mask)?;
    Ok(result)
}

fn check(args: &ForwardProcessArgs<'_>) -> Result<()> {
    let invalid = |what| Err(Error::InvalidArgument { op: OP, what });
    let tokens = args.ids.len();
    let ends = (args.offsets.first(), args.offsets.last());
    if ends != (Some(&0), Some(&tokens)) || !args.offsets.is_sorted() {
        return invalid("offsets do not ascend from 0 to the number of tokens");
    }
    if args.t.is_some_and(|t| t.len() != args.offsets.len() - 1) {
        return invalid("there is not one noise level per sequence");
    }
    let is_level = |t: &f32| (0.0..=1.0).contains(t);
    if args.t.is_some_and(|t| !t.iter().all(is_level)) {
        return invalid("a noise level is not in [0, 1]");
    }
    if args.maskable.is_some_and(|flags| flags.len() != tokens) {
        return invalid("there is not one flag per token");
    }
    Ok(())
}
