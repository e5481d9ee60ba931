//! The processes of a run that a launcher such as `mpirun` started.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use llada::train::{Communicator, Single};

use crate::output::note;

/// Variables by which launchers tell a process how many there are in its job: Open MPI's `mpirun`,
/// MPICH's and Intel's, and Slurm's `srun`.
const SIZES: &[&str] = &["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Joins the job that this process belongs to, if it is one of several, and runs its part, with so
/// many threads; an error of one rank ends all.
pub(super) fn of_all(
    threads: usize,
    run: impl FnOnce(&dyn Communicator) -> Result<()>,
) -> Result<()> {
    let communicator = join()?;
    let communicator = &*communicator;
    tell_threads(communicator, threads);
    match run(communicator) {
        Err(error) if communicator.size() > 1 => give_up(communicator, &error),
        done => done,
    }
}

/// The processes that this one belongs to, or it alone.
fn join() -> Result<Box<dyn Communicator>> {
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
fn give_up(communicator: &dyn Communicator, error: &anyhow::Error) -> ! {
    // Most errors are those of all ranks: rank 0 says them for all, and ends this one meanwhile.
    if communicator.rank() != 0 {
        thread::sleep(Duration::from_secs(2));
    }
    note(&format!("error: rank {}: {error:#}", communicator.rank()));
    communicator.abort()
}

/// What a rank says of the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    /// Stands for the name of the machine.
    host: u32,
    /// Threads of the rank.
    threads: u32,
    /// Processors of the machine.
    processors: u32,
}

/// Says how many threads each rank has, and warns of processors that none uses.
fn tell_threads(communicator: &dyn Communicator, threads: usize) {
    if communicator.size() == 1 {
        return;
    }
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // FNV-1a: two machines need different numbers, and no more.
    let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let host = name.bytes().fold(0x811C_9DC5, hash);
    let mine = [
        f64::from(host),
        u32::try_from(threads).map_or(0.0, f64::from),
        f64::from(processors().unwrap_or(0)),
    ];
    let told = communicator.all_gather(&mine);
    if communicator.rank() == 0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "they were whole numbers of 32 bits"
        )]
        let place = |told: &Vec<f64>| Place {
            host: told[0] as u32,
            threads: told[1] as u32,
            processors: told[2] as u32,
        };
        let places: Vec<Place> = told.iter().map(place).collect();
        threads_text(&places).iter().for_each(|line| note(line));
    }
}

/// Processors of this machine that are switched on, whatever this process may use.
fn processors() -> Option<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count_listed(&text)
}

/// How many numbers a list such as `0-3,8` has.
fn count_listed(text: &str) -> Option<u32> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    text.trim().split(',').map(count).sum()
}

fn threads_text(places: &[Place]) -> Vec<String> {
    let threads = |places: &[Place]| -> Vec<u32> { places.iter().map(|p| p.threads).collect() };
    let all = threads(places);
    let n = places.len();
    let mut lines = vec![match all.iter().all(|t| *t == all[0]) {
        true => format!("{n} ranks, threads of each: {}", all[0]),
        false => format!("{n} ranks, threads of each in their order: {all:?}"),
    }];
    let mut hosts: Vec<u32> = places.iter().map(|place| place.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        let here: Vec<Place> = places.iter().filter(|p| p.host == host).copied().collect();
        let (used, all): (u32, u32) = (threads(&here).iter().sum(), here[0].processors);
        if used < all {
            let each = all as usize / here.len();
            lines.push(format!(
                "warning: {} of the {all} processors of a machine do nothing; `mpirun --map-by \
                 slot:PE={each}` gives each of its {} ranks {each}, or --threads {each} with \
                 `mpirun --bind-to none`",
                all - used,
                here.len()
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    //! Tests of what is said of threads.

    use super::*;

    fn place(host: u32, threads: u32, processors: u32) -> Place {
        Place {
            host,
            threads,
            processors,
        }
    }

    #[test]
    fn processors_that_no_rank_uses_are_told() {
        let lines = threads_text(&[place(1, 1, 16); 4]);
        assert_eq!(lines[0], "4 ranks, threads of each: 1");
        assert!(
            lines[1].starts_with("warning: 12 of the 16 processors"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("slot:PE=4` gives each of its 4 ranks 4"),
            "{lines:?}"
        );
        assert_eq!(threads_text(&[place(1, 8, 16), place(1, 8, 16)]).len(), 1);
        // Two machines, of which one is full.
        let lines = threads_text(&[place(1, 4, 4), place(2, 2, 4)]);
        assert_eq!(lines[0], "2 ranks, threads of each in their order: [4, 2]");
        assert!(lines[1].starts_with("warning: 2 of the 4"), "{lines:?}");
        assert_eq!(lines.len(), 2);
        // Where the system does not say how many there are.
        assert_eq!(threads_text(&[place(1, 1, 0); 2]).len(), 1);
    }

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(count_listed("0-3,8\n"), Some(5));
        assert_eq!(count_listed("0"), Some(1));
        assert_eq!(count_listed(""), None);
    }
}
