//! The processes of a run that a launcher such as `mpirun` started.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use llada::train::{Communicator, Single};

use crate::output::note;

/// Variables by which launchers tell a process how many there are in its job: Open MPI's `mpirun`,
/// MPICH's and Intel's, and Slurm's `srun`.
const SIZES: &[&str] = &["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Joins the job that this process belongs to, if it is one of several.
pub(super) fn join() -> Result<Box<dyn Communicator>> {
    let is_several = |name: &&&str| {
        let size = std::env::var(name).ok().and_then(|size| size.parse().ok());
        size.is_some_and(|size: usize| size > 1)
    };
    match SIZES.iter().find(is_several) {
        None => Ok(Box::new(Single)),
        Some(name) => join_job(name),
    }
}

#[cfg(feature = "mpi")]
fn join_job(name: &str) -> Result<Box<dyn Communicator>> {
    use anyhow::Context as _;
    let mpi = llada::train::Mpi::start();
    Ok(Box::new(mpi.with_context(|| {
        format!("{name} is more than 1, but MPI could not be started")
    })?))
}

#[cfg(not(feature = "mpi"))]
fn join_job(name: &str) -> Result<Box<dyn Communicator>> {
    anyhow::bail!(
        "this is one process of several ({name} is more than 1), but MPI is not built in; build \
         with `cargo build --release -p llada-cli --features mpi`"
    )
}

/// Says what failed and ends all ranks.
pub(super) fn give_up(communicator: &dyn Communicator, error: &anyhow::Error) -> ! {
    // Most errors are those of all ranks: rank 0 says them for all, and ends this one meanwhile.
    if communicator.rank() != 0 {
        thread::sleep(Duration::from_secs(2));
    }
    note(&format!("error: rank {}: {error:#}", communicator.rank()));
    communicator.abort()
}
