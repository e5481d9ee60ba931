//! See `/kernels/candidates.cu`.

mod head;

use std::sync::Arc;

use llada_kernels::args::{
    LLADA_NOISE_NONE, LLADA_NOISE_PHILOX, LLADA_NOISE_RECORDED, LladaCandidate,
    LladaCandidatePartial, LladaCandidatesArgs, LladaCandidatesMergeArgs,
};
use llada_tensor::Result;
use llada_tensor::backend::{Candidate, CandidateArgs, Noise};

use crate::context::Context;
use crate::launch::candidates::{self as plan, HeadTile};
use crate::launch::narrow;
use crate::memory::Scratch;

pub(crate) use head::{Head, wide};

const OP: &str = "candidates";

/// See [`llada_tensor::backend::Backend::candidates`].
pub(crate) fn candidates(cx: &Context, args: CandidateArgs<'_>) -> Result<Vec<Candidate>> {
    let rows = args.hidden.shape()[0];
    read(cx, &on_device(cx, &args)?, rows)
}

/// `[N]` candidates, when the device has them.
pub(crate) fn read(cx: &Context, memory: &Scratch, rows: usize) -> Result<Vec<Candidate>> {
    let mut words = vec![[0_u32; size_of::<LladaCandidate>() / 4]; rows];
    cx.download(memory, &mut words)?;
    let candidate = |[token, confidence, margin, entropy]: [u32; 4]| Candidate {
        token,
        confidence: f32::from_bits(confidence),
        margin: f32::from_bits(margin),
        entropy: f32::from_bits(entropy),
    };
    Ok(words.into_iter().map(candidate).collect())
}

/// `[N]` candidates in device memory.
pub(crate) fn on_device(cx: &Context, args: &CandidateArgs<'_>) -> Result<Scratch> {
    let rows = args.hidden.shape()[0];
    let states = (args.hidden, args.unconditional);
    let head = Head::new(cx, OP, states, args.head, args.bias, args.precision)?;
    let (rule, vocab_size) = (args.rule, head.vocab_size);
    let noise = DeviceNoise::new(cx, args)?;
    let suppress = cx.upload(rule.suppress)?;
    let suppress_confidence = cx.upload(rule.suppress_confidence)?;
    let n_suppress_confidence = narrow(OP, rule.suppress_confidence.len())?;
    let tiles = plan::tiles(vocab_size);
    let logits = if args.unconditional.is_some() { 2 } else { 1 };

    let out = cx.scratch(rows * size_of::<LladaCandidate>())?;
    for pass in plan::candidate_passes(rows, vocab_size) {
        let partials = cx.scratch(pass.len() * tiles * size_of::<LladaCandidatePartial>())?;
        let tile = HeadTile::of(head.operands, pass.len() * logits);
        head.for_each_part(cx, pass.clone(), head.most_entries(), |part| {
            let kernel_args = LladaCandidatesArgs {
                head: *part,
                suppress: suppress.pointer(),
                suppress_confidence: suppress_confidence.pointer(),
                seeds: noise.seeds + (pass.start * size_of::<u64>()) as u64,
                keys: noise.keys + (pass.start * size_of::<[u32; 3]>()) as u64,
                recorded: noise.recorded + (pass.start * vocab_size * size_of::<f64>()) as u64,
                partials: partials.pointer(),
                temperature: rule.temperature,
                noise: noise.kind,
                cfg_scale: rule.cfg_scale,
                n_suppress: narrow(OP, rule.suppress.len())?,
                n_suppress_confidence,
                tiles: wide(tiles),
            };
            let entries = usize::try_from(part.len).unwrap_or(0);
            let grid = tile.plan(OP, [pass.len(), logits], entries)?;
            cx.launch(OP, entry(tile), grid, &kernel_args)
        })?;
        let kernel_args = LladaCandidatesMergeArgs {
            partials: partials.pointer(),
            suppress_confidence: suppress_confidence.pointer(),
            candidates: out.pointer() + (pass.start * size_of::<LladaCandidate>()) as u64,
            tiles: wide(tiles),
            rows: narrow(OP, pass.len())?,
            n_suppress_confidence,
        };
        let grid = plan::merge(OP, pass.len())?;
        cx.launch(OP, "llada_candidates_merge_f32", grid, &kernel_args)?;
    }
    Ok(out)
}

fn entry(tile: HeadTile) -> &'static str {
    match tile {
        HeadTile::Bf16R16 => "llada_candidates_fwd_bf16_r16",
        HeadTile::Bf16R32 => "llada_candidates_fwd_bf16_r32",
        HeadTile::Bf16R64 => "llada_candidates_fwd_bf16_r64",
        HeadTile::Bf16R128 => "llada_candidates_fwd_bf16_r128",
        HeadTile::F32R16 => "llada_candidates_fwd_f32_r16",
        HeadTile::F32R64 => "llada_candidates_fwd_f32_r64",
        HeadTile::Logits => "llada_candidates_fwd_logits_f32",
    }
}

/// Gumbel noise as the kernel has it; addresses that it does not read are 0.
struct DeviceNoise {
    kind: i32,
    seeds: u64,
    keys: u64,
    recorded: u64,
    _kept: Vec<Arc<Scratch>>,
}

impl DeviceNoise {
    fn new(cx: &Context, args: &CandidateArgs<'_>) -> Result<Self> {
        let (mut seeds_at, mut keys_at, mut recorded, mut kept) = (0, 0, 0, Vec::new());
        let kind = match *args.noise {
            // Without draws all entries have the same noise.
            _ if args.rule.temperature <= 0.0 => LLADA_NOISE_NONE,
            Noise::None => LLADA_NOISE_NONE,
            Noise::Philox { seeds, keys } => {
                let (seeds, keys) = (cx.upload_once(seeds)?, cx.upload_once(keys)?);
                (seeds_at, keys_at) = (seeds.pointer(), keys.pointer());
                kept.extend([seeds, keys]);
                LLADA_NOISE_PHILOX
            }
            Noise::Recorded(draws) => {
                let draws = cx.upload_once(draws)?;
                recorded = draws.pointer();
                kept.push(draws);
                LLADA_NOISE_RECORDED
            }
        };
        Ok(Self {
            kind: kind.cast_signed(),
            seeds: seeds_at,
            keys: keys_at,
            recorded,
            _kept: kept,
        })
    }
}
