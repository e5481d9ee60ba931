//! Checkpoints of the training state, whole at any moment.
//!
//! A checkpoint is written to `state/step-N.tmp`, synced, renamed to `state/step-N`, and only then
//! are older ones removed. `state.json` holds length and checksum of the other files, so that a
//! damaged checkpoint is found out and the one before it is used.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use llada_diffusion::Parameter;
use llada_files::sync_folder;
use llada_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::communicator::{Communicator, any, broadcast_values};
use crate::durable::{Crc32, FileSum, checksum, io, replace};
use crate::guard::Guard;
use crate::tensor_file::{TensorFile, entries, write_tensors};
use crate::{BatchState, Error, ExportDType, Optimizer, Result};

const PARAMETERS: &str = "parameters.safetensors";
const FIRST_MOMENTS: &str = "first_moments.safetensors";
const SECOND_MOMENTS: &str = "second_moments.safetensors";
const STATE: &str = "state.json";

/// Everything of the training state but the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimizer steps taken.
    pub(crate) step: u64,
    /// Tokens seen.
    pub(crate) tokens: u64,
    /// Time spent in steps, in seconds.
    pub(crate) seconds: f64,
    /// Where the data order stands.
    pub(crate) batches: BatchState,
    /// What happened to harmful steps.
    #[serde(default)]
    pub(crate) guard: Guard,
    /// Sums since the last line of the metrics.
    pub(crate) interval: Interval,
    /// Every key of the configuration.
    pub(crate) config: BTreeMap<String, Value>,
    /// Checksum of the tokens of each training file.
    pub(crate) data: BTreeMap<String, u32>,
    /// Checksum of the `tokenizer.json`.
    pub(crate) tokenizer: u32,
}

/// Sums since the last line of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Steps.
    pub(crate) steps: u64,
    /// Sum of their losses.
    pub(crate) loss: f64,
    /// Sum of their tokens.
    pub(crate) tokens: u64,
    /// Sum of their seconds.
    pub(crate) seconds: f64,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    format: u32,
    state: State,
    files: BTreeMap<String, FileSum>,
}

const FORMAT: u32 = 1;

/// Writes a checkpoint and removes all but the newest `keep`. Rank 0 does this, while the others
/// [`assist`].
///
/// # Errors
/// [`Error::Io`]; the checkpoints before are then as they were.
pub(crate) fn save(
    folder: &Path,
    state: &State,
    parameters: &[Parameter],
    optimizer: &Optimizer<'_>,
    keep: usize,
) -> Result<PathBuf> {
    let path = folder.join(format!("step-{}", state.step));
    let temporary = path.with_extension("tmp");
    remove_folder(&temporary)?;
    if let Err(error) = write_checkpoint(&temporary, state, parameters, optimizer) {
        // Room on a full disk matters more than this second error.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    // One of the same step is here only if it was found damaged.
    remove_folder(&path)?;
    fs::rename(&temporary, &path).map_err(io("writing", &path))?;
    sync_folder(folder).map_err(io("syncing", folder))?;
    let mut older = step_folders(folder)?;
    older.retain(|(step, _)| *step < state.step);
    for (_, old) in older.iter().rev().skip(keep - 1) {
        remove_folder(old)?;
    }
    Ok(path)
}

fn write_checkpoint(
    folder: &Path,
    state: &State,
    parameters: &[Parameter],
    optimizer: &Optimizer<'_>,
) -> Result<()> {
    fs::create_dir(folder).map_err(io("creating", folder))?;
    let entries = entries(parameters);
    let write = |name: &str, values: &dyn Fn(usize) -> Result<Vec<f32>>| {
        let sum = write_tensors(&folder.join(name), &entries, ExportDType::F32, values)?;
        Ok::<_, Error>((name.to_owned(), sum))
    };
    let files = BTreeMap::from([
        write(PARAMETERS, &|index| {
            Ok(parameters[index].value.to_vec_f32()?)
        })?,
        write(FIRST_MOMENTS, &|index| optimizer.moment(0, index))?,
        write(SECOND_MOMENTS, &|index| optimizer.moment(1, index))?,
    ]);
    let state = StateFile {
        format: FORMAT,
        state: state.clone(),
        files,
    };
    let json = serde_json::to_vec_pretty(&state).expect("keys are strings and numbers finite");
    replace(&folder.join(STATE), json)
}

/// Gives rank 0 the moments that it writes, in the order in which it does.
pub(crate) fn assist(optimizer: &Optimizer<'_>, n_parameters: usize) -> Result<()> {
    for order in 0..2 {
        for index in 0..n_parameters {
            optimizer.moment(order, index)?;
        }
    }
    Ok(())
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// All but the tensors.
    pub(crate) state: State,
}

/// The newest whole checkpoint; `None` if there is none at all.
///
/// # Errors
/// [`Error::NoWholeCheckpoint`] if there are some, but none is whole: to begin anew is for the
/// user to decide.
pub(crate) fn newest(folder: &Path) -> Result<Option<Found>> {
    let mut damage = None;
    for (_, path) in step_folders(folder)?.into_iter().rev() {
        match check(&path) {
            Ok(state) => return Ok(Some(Found { path, state })),
            Err(reason) => {
                damage.get_or_insert(reason);
            }
        }
    }
    match damage {
        None => Ok(None),
        Some(reason) => Err(Error::NoWholeCheckpoint {
            path: folder.to_owned(),
            reason,
        }),
    }
}

/// The state of a checkpoint, or what is wrong with it.
fn check(path: &Path) -> std::result::Result<State, String> {
    let state_path = path.join(STATE);
    let bad = |what: &dyn Display| format!("{}: {what}", state_path.display());
    let json = fs::read(&state_path).map_err(|error| bad(&error))?;
    let file: StateFile = serde_json::from_slice(&json).map_err(|error| bad(&error))?;
    if file.format != FORMAT {
        return Err(bad(&format!("format {} is unknown", file.format)));
    }
    for name in [PARAMETERS, FIRST_MOMENTS, SECOND_MOMENTS] {
        let part = path.join(name);
        let sum = checksum(&part).map_err(|error| error.to_string())?;
        if file.files.get(name) != Some(&sum) {
            return Err(format!("{} is truncated or damaged", part.display()));
        }
    }
    Ok(file.state)
}

/// Gives all ranks the parameters of rank 0: those of the checkpoint at `path`, or without one
/// those that it has. Returns the optimizer, each rank with the moments that it keeps.
///
/// # Errors
/// [`Error::ForeignCheckpoint`] if the tensors are not those of this model.
pub(crate) fn restore<'a>(
    path: Option<&Path>,
    parameters: &mut [Parameter],
    communicator: &'a dyn Communicator,
) -> Result<Optimizer<'a>> {
    let mut optimizer = Optimizer::sharded(parameters, communicator)?;
    let is_resumed = any(communicator, path.is_some());
    let expected = entries(parameters);
    let open = |name: &str| {
        let path = path.map(|path| path.join(name));
        let file = path.map(|path| TensorFile::open(&path, &expected));
        file.transpose()
    };
    let mut values = open(PARAMETERS)?;
    let mut moments = [open(FIRST_MOMENTS)?, open(SECOND_MOMENTS)?];
    for (index, parameter) in parameters.iter_mut().enumerate() {
        let value = match &mut values {
            Some(file) => file.read(index)?,
            None if communicator.size() == 1 => continue,
            None => parameter.value.to_vec_f32()?,
        };
        let value = broadcast_values(communicator, 0, value);
        let (device, shape) = (parameter.value.device(), parameter.value.shape());
        parameter.value = Tensor::from_f32(device, shape, &value)?;
        if !is_resumed {
            continue;
        }
        for (order, file) in moments.iter_mut().enumerate() {
            let read = |file: &mut TensorFile| file.read(index);
            let moment = file.as_mut().map(read).transpose()?.unwrap_or_default();
            let moment = broadcast_values(communicator, 0, moment);
            optimizer.set_moment(order, index, &moment)?;
        }
    }
    Ok(optimizer)
}

/// Checksum of the values of parameters, by which a run can tell that it goes on from the model
/// that it began with.
///
/// # Errors
/// If the runtime fails.
pub fn parameters_checksum(parameters: &[Parameter]) -> Result<u32> {
    let mut crc = Crc32::new();
    for parameter in parameters {
        crc.update(bytemuck::cast_slice(&parameter.value.to_vec_f32()?));
    }
    Ok(crc.value())
}

/// The checkpoints of a run, whole or not, by step.
pub(crate) fn step_folders(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        other => other.map_err(io("reading", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(io("reading", folder))?.path();
        let name = path.file_name().and_then(OsStr::to_str);
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(io("removing", path)),
    }
}
