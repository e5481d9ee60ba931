//! Losses, gradients and updates.

use llada::diffusion::{
    Noised, TokenBatch, Trainable as _, diffusion_loss_weights, forward_process, sft_loss_weights,
};
use llada::tensor::ops::adamw::{AdamWArgs, adamw, global_norm};
use llada::tensor::{DType, Gradients, Tape, Tensor};
use llada::{LladaModel, ModelSource, Precision};
use serde_json::Value;

use crate::files::{Case, Tensors, cases, device, max_difference, root};

/// A recorded model and its tensors.
struct Recorded {
    case: Case,
    folder: String,
    tensors: Tensors,
}

/// The cases that have a checkpoint of their own.
fn recorded() -> Vec<Recorded> {
    let of = |case: Case| {
        let config = case.json.get("config")?.as_str()?;
        let folder = config.rsplit_once('/')?.0.to_owned();
        let tensors = Tensors::open(&format!("{folder}/golden.safetensors"));
        Some(Recorded {
            case,
            folder,
            tensors,
        })
    };
    let recorded: Vec<Recorded> = cases("train").into_iter().filter_map(of).collect();
    assert!(!recorded.is_empty(), "no case has a checkpoint");
    recorded
}

impl Recorded {
    fn model(&self) -> LladaModel {
        let source = ModelSource::open(&root().join(&self.folder)).unwrap();
        source.trainable(&device(), Precision::F32).unwrap()
    }

    /// The forward process with recorded draws, `[rows, L]` from row `first` on.
    fn noise(
        &self,
        kind: &str,
        draws: &str,
        first: usize,
        n_rows: usize,
        length: usize,
        mask: u32,
    ) -> (Noised, Option<Vec<usize>>) {
        let name = |part: &str| format!("{draws}.{part}");
        let ids: Vec<Vec<u32>> = self.tensors.rows(&format!("{kind}.input_ids"))
            [first..first + n_rows]
            .iter()
            .map(|row| row[..length].to_vec())
            .collect();
        let batch = TokenBatch::new(&ids).unwrap();
        let t = &self.tensors.f32s(&name("t"))[first..first + n_rows];
        let full = *self.tensors.shape(&name("u")).last().unwrap();
        let u: Vec<f32> = self.tensors.f32s(&name("u"))[first * full..(first + n_rows) * full]
            .chunks(full)
            .flat_map(|row| row[..length].to_vec())
            .collect();
        let prompts = format!("{kind}.prompt_lengths");
        let prompts = self
            .tensors
            .has(&prompts)
            .then(|| self.tensors.counts(&prompts)[first..first + n_rows].to_vec());
        let maskable: Option<Vec<bool>> = prompts.as_ref().map(|prompts| {
            prompts
                .iter()
                .flat_map(|&p| (0..length).map(move |at| at >= p))
                .collect()
        });
        (
            forward_process(&batch, mask, t, &u, maskable.as_deref()).unwrap(),
            prompts,
        )
    }
}

/// Weights of the recorded loss: eq. 3, or for SFT that of the reference's guidelines,
/// `1 / (p_mask answer_length B)`.
fn weights(noised: &Noised, prompts: Option<&[usize]>) -> Vec<f32> {
    let Some(prompts) = prompts else {
        return diffusion_loss_weights(noised);
    };
    let rows = noised.batch.sequences().zip(prompts);
    let of = |(row, &prompt): (&[u32], &usize)| {
        (0..row.len()).map(move |at| if at < prompt { 0.0 } else { 1.0 })
    };
    let token_weights: Vec<f32> = rows.flat_map(of).collect();
    sft_loss_weights(noised, &token_weights).unwrap()
}

fn loss_and_gradients(model: &LladaModel, noised: &Noised, weights: &[f32]) -> (f64, Gradients) {
    let mut tape = Tape::recording(model.device(), Precision::F32);
    let loss = model
        .weighted_cross_entropy(
            &mut tape,
            &noised.batch,
            &noised.positions,
            &noised.targets,
            weights,
        )
        .unwrap();
    let value = f64::from(loss.value().to_vec_f32().unwrap()[0]);
    let mut gradients = Gradients::zeros_like(model.parameters().iter().map(|p| &p.value)).unwrap();
    tape.backward(&loss, &mut gradients).unwrap();
    (value, gradients)
}

#[track_caller]
fn check_relative(what: &str, got: f64, expected: f64, bound: f64) {
    let error = ((got - expected) / expected).abs();
    assert!(error <= bound, "{what}: {got}, not {expected} ({error:e})");
}

#[test]
fn losses_and_gradients_are_the_reference_s() {
    for recorded in recorded() {
        let (model, name) = (recorded.model(), &recorded.case.name);
        let mask = model.config().mask_token_id;
        let (n_rows, full) = (recorded.case.count("batch"), recorded.case.count("length"));
        for kind in ["pre", "short", "sft"] {
            let short = kind == "short";
            let length = if short {
                recorded.tensors.counts("short.length")[0]
            } else {
                full
            };
            // The short batch is the first one, cut.
            let source = if short { "pre" } else { kind };
            let (noised, prompts) = recorded.noise(source, source, 0, n_rows, length, mask);
            let noisy = recorded.tensors.rows(&format!("{kind}.noisy")).concat();
            assert_eq!(noised.batch.ids(), noisy, "{name}, {kind}: masked batch");
            let figures = &recorded.case.json[kind];
            assert_eq!(
                noised.positions.len() as u64,
                figures["masked_tokens"].as_u64().unwrap()
            );

            let weights = weights(&noised, prompts.as_deref());
            let (loss, gradients) = loss_and_gradients(&model, &noised, &weights);
            check_relative(
                &format!("{name}, {kind}: loss"),
                loss,
                figures["loss"].as_f64().unwrap(),
                1e-5,
            );
            let norm = global_norm(gradients.tensors()).unwrap();
            check_relative(
                &format!("{name}, {kind}: norm"),
                norm,
                figures["grad_norm"].as_f64().unwrap(),
                1e-4,
            );
            for (parameter, gradient) in model.parameters().iter().zip(gradients.tensors()) {
                let expected = recorded
                    .tensors
                    .f64s(&format!("{kind}.grad.{}", parameter.name));
                let largest = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
                let error = max_difference(&gradient.to_vec_f32().unwrap(), &expected);
                assert!(
                    error <= 1e-4 * largest,
                    "{name}, {kind}, {}: {error:e} of {largest:e}",
                    parameter.name
                );
            }
        }
    }
}

/// One update as that of `PyTorch`: the gradient clipped to `clip_norm`, decay on every parameter.
fn update(
    parameters: &mut [&mut Tensor],
    gradients: &[Tensor],
    moments: &mut [(Tensor, Tensor)],
    run: &Value,
    step: u64,
) -> f64 {
    let norm = global_norm(gradients).unwrap();
    let clip = run["clip_norm"]
        .as_f64()
        .map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
    let number = |value: &Value| value.as_f64().unwrap() as f32;
    let learning_rate = number(&run["lrs"][step as usize - 1]);
    for ((parameter, gradient), (first_moment, second_moment)) in
        parameters.iter_mut().zip(gradients).zip(moments)
    {
        adamw(AdamWArgs {
            parameter,
            gradient,
            first_moment,
            second_moment,
            learning_rate,
            beta1: number(&run["betas"][0]),
            beta2: number(&run["betas"][1]),
            eps: number(&run["eps"]),
            weight_decay: number(&run["weight_decay"]),
            gradient_scale: clip as f32,
            step,
        })
        .unwrap();
    }
    norm
}

fn zeros(like: &Tensor) -> (Tensor, Tensor) {
    let zero = || Tensor::zeros(like.device(), DType::F32, like.shape()).unwrap();
    (zero(), zero())
}

#[test]
fn parameters_after_three_steps_are_the_reference_s() {
    for recorded in recorded() {
        for (run, data) in [
            ("pre", "steps"),
            ("pre_clip", "steps"),
            ("sft", "steps_sft"),
        ] {
            let settings = &recorded.case.json[&format!("run_{run}")];
            let (mut model, name) = (recorded.model(), format!("{}, {run}", recorded.case.name));
            let mask = model.config().mask_token_id;
            let (n_rows, length) = (recorded.case.count("batch"), recorded.case.count("length"));
            let mut moments: Vec<_> = model.parameters().iter().map(|p| zeros(&p.value)).collect();
            let mut n_compared = 0;
            for step in 0..settings["lrs"].as_array().unwrap().len() {
                let (noised, prompts) =
                    recorded.noise(data, "steps", step * n_rows, n_rows, length, mask);
                let weights = weights(&noised, prompts.as_deref());
                let (loss, gradients) = loss_and_gradients(&model, &noised, &weights);
                check_relative(
                    &format!("{name}: loss {step}"),
                    loss,
                    settings["losses"][step].as_f64().unwrap(),
                    1e-4,
                );
                let mut parameters: Vec<&mut Tensor> = model
                    .parameters_mut()
                    .iter_mut()
                    .map(|p| &mut p.value)
                    .collect();
                let norm = update(
                    &mut parameters,
                    gradients.tensors(),
                    &mut moments,
                    settings,
                    step as u64 + 1,
                );
                check_relative(
                    &format!("{name}: norm {step}"),
                    norm,
                    settings["grad_norms_before_clip"][step].as_f64().unwrap(),
                    1e-3,
                );
                let (after, last) = (format!("{run}.after{}", step + 1), format!("{run}.after3"));
                let (mut far, mut n) = (0, 0);
                for parameter in model.parameters() {
                    let tensor = format!("{after}.{}", parameter.name);
                    // A recording may hold the last state under the name of an earlier one.
                    let is_last = || {
                        let last = format!("{last}.{}", parameter.name);
                        recorded.tensors.f64s(&tensor) == recorded.tensors.f64s(&last)
                    };
                    if !recorded.tensors.has(&tensor) || (after != last && is_last()) {
                        continue;
                    }
                    let (ours, theirs) = (
                        parameter.value.to_vec_f32().unwrap(),
                        recorded.tensors.f64s(&tensor),
                    );
                    let error = max_difference(&ours, &theirs);
                    assert!(error <= 1e-3, "{name}: {tensor} is off by {error:e}");
                    far += ours
                        .iter()
                        .zip(&theirs)
                        .filter(|(x, y)| (f64::from(**x) - **y).abs() > 2e-6)
                        .count();
                    n += ours.len();
                }
                n_compared += n;
                assert!(
                    far as f64 <= 1e-3 * n as f64,
                    "{name}: {far} of {n} entries after step {}",
                    step + 1
                );
            }
            assert!(n_compared > 0, "{name}: no parameters were recorded");
        }
    }
}

#[test]
fn the_optimizer_alone_is_pytorch_s() {
    let path = root().join("train/adamw.json");
    let runs: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let tensors = Tensors::open("train/adamw.safetensors");
    let device = device();
    let of =
        |name: &str| Tensor::from_f32(&device, &tensors.shape(name), &tensors.f32s(name)).unwrap();
    for (name, run) in runs.as_object().unwrap() {
        let (mut a, mut b) = (of("p0.a"), of("p0.b"));
        let mut moments = vec![zeros(&a), zeros(&b)];
        for step in 1..=run["lrs"].as_array().unwrap().len() {
            let gradients = ["a", "b"].map(|p| of(&format!("grad{step}.{p}")));
            let norm = update(
                &mut [&mut a, &mut b],
                &gradients,
                &mut moments,
                run,
                step as u64,
            );
            check_relative(
                name,
                norm,
                run["grad_norms"][step - 1].as_f64().unwrap(),
                1e-6,
            );
            for (p, value) in [("a", &a), ("b", &b)] {
                let error = max_difference(
                    &value.to_vec_f32().unwrap(),
                    &tensors.f64s(&format!("{name}.p{step}.{p}")),
                );
                assert!(error <= 2e-6, "{name}, step {step}, {p}: {error:e}");
            }
        }
    }
}
