//! What the kernels need of the backend.

use std::sync::Arc;

use super::level::CpuLevel;
use super::workers::Workers;
use crate::Pool;

/// Instructions, threads and memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) level: CpuLevel,
    pub(super) workers: &'a Workers,
    pub(super) pool: &'a Arc<Pool>,
}
