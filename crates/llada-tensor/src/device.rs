//! Where tensors live and ops run.

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;
use crate::cpu::CpuBackend;
use crate::{CpuLevel, Result};

/// How the CPU backend runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuConfig {
    /// Worker threads; 0 means one per available core.
    pub threads: usize,
    /// Instruction set; `None` means the best that the machine has.
    pub level: Option<CpuLevel>,
}

/// A handle on a backend; cheap to clone.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
}

impl Device {
    /// The CPU.
    ///
    /// # Errors
    /// [`crate::Error::LevelUnavailable`] if the machine lacks the asked instruction set,
    /// [`crate::Error::Threads`] if the worker threads cannot be started.
    pub fn cpu(config: CpuConfig) -> Result<Self> {
        Ok(Self::new(Arc::new(CpuBackend::new(config)?)))
    }

    /// A device whose backend is in another crate.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// The ops of the device.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("backend", &self.backend.name())
            .finish_non_exhaustive()
    }
}
