//! The folder of a run: a loadable checkpoint, metrics, the loss picture, the training state.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use llada_diffusion::Export;

use crate::checkpoint::step_folders;
use crate::durable::{io, replace};
use crate::tensor_file::write_tensors;
use crate::{Error, ExportDType, Result};

const MODEL: &str = "model.safetensors";

/// The folder of a run, locked while this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The system gives the lock back when the process ends, however it ends.
    lock: File,
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Closing would do, were it not for a child process that was just forked and still holds
        // a copy of the handle.
        let _ = self.lock.unlock();
    }
}

impl RunFolder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be made or written; [`Error::InUse`] if another process
    /// trains in it; [`Error::Occupied`] if it holds a model that no run of ours made.
    pub fn open(path: &Path) -> Result<Self> {
        let state = path.join("state");
        if path.join(MODEL).exists() && step_folders(&state)?.is_empty() {
            return Err(Error::Occupied {
                path: path.to_owned(),
            });
        }
        fs::create_dir_all(&state).map_err(io("creating", &state))?;
        let lock_path = state.join("lock");
        let lock = File::create(&lock_path).map_err(io("writing", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("locking", &lock_path)(source)),
        }
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a checkpoint to resume from.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn has_checkpoint(&self) -> Result<bool> {
        Ok(!step_folders(&self.state())?.is_empty())
    }

    /// Folder of the checkpoints.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Writes `config.json`, `tokenizer.json` and the files of the model, each in one step;
    /// `dtype` is that of `model.safetensors`, files beside it are `f32`.
    pub(crate) fn export(
        &self,
        files: &[Export],
        dtype: ExportDType,
        config_json: &[u8],
        tokenizer_json: &[u8],
    ) -> Result<()> {
        replace(&self.path.join("config.json"), |file| {
            file.write(config_json)
        })?;
        replace(&self.path.join("tokenizer.json"), |file| {
            file.write(tokenizer_json)
        })?;
        for export in files {
            let tensors = export.tensors.iter().map(|(name, t)| (name.clone(), t));
            let dtype = match export.file {
                MODEL => dtype,
                _ => ExportDType::F32,
            };
            replace(&self.path.join(export.file), |file| {
                write_tensors(file, tensors, dtype)
            })?;
        }
        Ok(())
    }
}
