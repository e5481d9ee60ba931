//! `llada sft`.

use std::path::Path;

use anyhow::Result;
use llada::diffusion::{MaskPredictor as _, Trainable as _};
use llada::model::companions::carry_along;
use llada::model::{LoraConfig, Origin};
use llada::text::{ChatTemplate, Error as TextError};
use llada::train::{
    Communicator, Data, SpecialIds, Summary, TrainConfig, parameters_checksum, sft_config_help,
};
use llada::{Checkpoint, Llada, LoadError};

use super::train::{Job, of_all_ranks, open, tell};
use crate::args::SftArgs;
use crate::output::{note, print};

pub(crate) fn run(args: &SftArgs) -> Result<()> {
    if args.train.help_config {
        return print(&sft_config_help());
    }
    of_all_ranks(&args.train, |communicator, run_dir, config_path| {
        sft_as(communicator, args, run_dir, config_path)
    })
}

/// The run of one rank.
fn sft_as(
    communicator: &dyn Communicator,
    args: &SftArgs,
    run_dir: &Path,
    config_path: &Path,
) -> Result<Option<Summary>> {
    let mut config = TrainConfig::sft_from_file(config_path)?;
    let lora = config.lora.as_ref().map(|section| LoraConfig {
        rank: section.rank,
        alpha: section.alpha,
        targets: section.targets.clone(),
    });
    lora.as_ref().map(LoraConfig::check).transpose()?;
    let run = open(communicator, run_dir, args.train.dry_run)?;
    let device = crate::config::device(&args.train.run)?;
    let checkpoint = crate::config::open(args.model.as_deref(), &args.adapter, args.open)?;
    let precision = config.train.precision.into();
    let Llada {
        model, tokenizer, ..
    } = checkpoint.trainable(&device, precision)?;
    let template = chat_template(&checkpoint)?;
    let info = model.info();
    let special = SpecialIds {
        eos_token_id: info.eos_token_id,
        mask_token_id: info.mask_token_id,
    };
    let data = Data::load_pairs(&config, &tokenizer, template.as_ref(), special)?;
    // A run goes on from the model that it began with.
    let checksum = parameters_checksum(model.parameters())?;
    config.model.insert("checksum".to_owned(), checksum.into());
    let name = args
        .model
        .as_deref()
        .map_or("the embedded poem model".into(), Path::to_string_lossy);
    config.model.insert("name".to_owned(), name.into());
    if let Some(id) = args.open.mask_token_id {
        config.model.insert("mask_token_id".to_owned(), id.into());
    }
    let mut model_config = model.config().clone();
    let model = match &lora {
        Some(lora) => model.with_lora(lora, config.seed)?,
        None => model,
    };
    let mut model = model.checkpoint_activations(config.train.activation_checkpointing);

    if communicator.rank() == 0 {
        tell(&data);
    }
    if communicator.rank() == 0 && !args.train.dry_run {
        let folder = match checkpoint.source().origin() {
            Origin::Folder { path, .. } => Some(path.as_path()),
            Origin::Gguf(_) | Origin::Memory(_) => None,
        };
        let missing = carry_along(folder, run.path(), &mut model_config)?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            note(&format!(
                "auto_map of config.json is left out: its code is not beside the model ({missing})"
            ));
        }
        tokenizer.save(run.path())?;
        if let Some(template) = template.as_ref().filter(|_| folder.is_none()) {
            template.save(run.path())?;
        }
        if let Some(lora) = &lora {
            // What adapters were merged into is in no folder that PEFT could be told of.
            let (base, revision) = match args.adapter.is_empty() {
                true => base_of(args.model.as_deref()),
                false => (None, None),
            };
            lora.save(run.path(), base.as_deref(), revision.as_deref())?;
        }
    }
    let config_json = model_config.to_json();
    let job = Job {
        config: &config,
        data: &data,
        run: &run,
        communicator,
        model_config: &model_config,
        config_json: config_json.as_bytes(),
        args: &args.train,
    };
    job.run(&mut model)
}

/// What PEFT calls the model that `--model` names: a folder by its whole path, as the adapter may
/// be loaded from anywhere, or a name on the Hub and a revision.
fn base_of(model: Option<&Path>) -> (Option<String>, Option<String>) {
    let Some(model) = model else {
        return (None, None);
    };
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    match (
        model.canonicalize(),
        model.to_str().and_then(|name| name.split_once('@')),
    ) {
        (Ok(path), _) => (text(&path), None),
        (Err(_), Some((name, revision))) => (Some(name.to_owned()), Some(revision.to_owned())),
        (Err(_), None) => (text(model), None),
    }
}

/// The chat template of a model, if it has one.
fn chat_template(checkpoint: &Checkpoint) -> Result<Option<ChatTemplate>> {
    match checkpoint.template() {
        Ok(template) => Ok(Some(template)),
        Err(LoadError::Text(TextError::NoChatTemplate { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
