//! The folder of a run: a loadable checkpoint, metrics, the loss picture, the training state.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use llada_diffusion::Export;
use llada_tensor::Tensor;

use crate::checkpoint::step_folders;
use crate::durable::{io, replace};
use crate::tensor_file::{Entry, write_tensors};
use crate::{Error, ExportDType, Result};

const MODEL: &str = "model.safetensors";
/// How long a process that was killed may take to end: one that uses a GPU a second or more.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often the lock is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// The folder of a run, locked while this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The system gives the lock back when the process ends, however it ends.
    lock: Option<File>,
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Closing would do, were it not for a child process that was just forked and still holds
        // a copy of the handle.
        let _ = self.lock.as_ref().map(File::unlock);
    }
}

impl RunFolder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be made or written; [`Error::InUse`] if another process
    /// trains in it and does not end in a few seconds; [`Error::Occupied`] if it holds a model that no run of ours made.
    pub fn open(path: &Path) -> Result<Self> {
        Self::unopened(path)?;
        let state = path.join("state");
        fs::create_dir_all(&state).map_err(io("creating", &state))?;
        let lock_path = state.join("lock");
        let lock = File::create(&lock_path).map_err(io("writing", &lock_path))?;
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::InUse {
                        path: path.to_owned(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(io("locking", &lock_path)(source)),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            lock: Some(lock),
        })
    }

    /// A folder that nothing is written into; it need not be there.
    ///
    /// # Errors
    /// [`Error::Occupied`] as [`Self::open`].
    pub fn unopened(path: &Path) -> Result<Self> {
        let is_occupied =
            path.join(MODEL).exists() && step_folders(&path.join("state"))?.is_empty();
        match is_occupied {
            true => Err(Error::Occupied {
                path: path.to_owned(),
            }),
            false => Ok(Self::of_rank_0(path)),
        }
    }

    /// The folder that rank 0 has opened, for the other ranks: they neither read nor write it, and
    /// it need not be there.
    #[must_use]
    pub fn of_rank_0(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
        }
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
        replace(&self.path.join("config.json"), config_json)?;
        replace(&self.path.join("tokenizer.json"), tokenizer_json)?;
        for Export { file, tensors } in files {
            let dtype = match *file {
                MODEL => dtype,
                _ => ExportDType::F32,
            };
            let entry = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.shape().to_vec());
            let entries: Vec<Entry> = tensors.iter().map(entry).collect();
            let values = |index: usize| Ok(tensors[index].1.to_vec_f32()?);
            let path = self.path.join(file);
            let folder = path.parent().unwrap_or(&self.path);
            fs::create_dir_all(folder).map_err(io("creating", folder))?;
            write_tensors(&path, &entries, dtype, values)?;
        }
        Ok(())
    }
}
