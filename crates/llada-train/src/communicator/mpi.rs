//! The ranks of an MPI job, which `mpirun`, Slurm or Kubernetes starts.
//!
//! One thread makes all calls, in the order in which they were asked for, so that exchanges go on
//! while the others compute.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::request::scope;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _, Root as _};

use super::{Communicator, Wait};

/// Elements that one call exchanges at most; bounds the memory that a sum takes.
const CHUNK: usize = 1 << 22;
/// Bytes that one call broadcasts at most; MPI counts in 32 bits.
const BROADCAST: usize = 1 << 30;

type Job = Box<dyn FnOnce(&SimpleCommunicator) + Send>;

/// A process of an MPI job.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    /// Emptied when the run ends.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Mpi {
    /// Joins the job that this process belongs to; `None` if it was done before.
    ///
    /// # Panics
    /// If the system has no room for a thread.
    #[must_use]
    pub fn start() -> Option<Self> {
        let (jobs, next_job) = channel::<Job>();
        let (tell, told) = channel();
        let talk = move || {
            // Any thread may abort while this one is in a call.
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Multiple) else {
                return;
            };
            let world = universe.world();
            let place = [world.rank(), world.size()].map(|n| usize::try_from(n).expect("counts"));
            if tell.send(place).is_ok() {
                next_job.iter().for_each(|job| job(&world));
            }
        };
        let thread = thread::Builder::new().name("mpi".to_owned()).spawn(talk);
        let thread = thread.expect("a thread can be started");
        let [rank, size] = told.recv().ok()?;
        Some(Self {
            rank,
            size,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has the thread do something; the result comes by the channel.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&SimpleCommunicator) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (tell, told) = channel();
        let job = move |world: &SimpleCommunicator| {
            // Nobody waits for the result of a run that failed.
            let _ = tell.send(job(world));
        };
        let jobs = self.jobs.as_ref().expect("emptied by drop alone");
        jobs.send(Box::new(job)).expect("the thread outlives this");
        told
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if thread::panicking() {
            self.abort();
        }
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

const ALIVE: &str = "a failed MPI call ends the process";

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start_reduce_scatter(&self, values: Vec<f32>, counts: &[usize]) -> Wait<'_> {
        let counts = counts.to_vec();
        let sums = self.ask(move |world| reduce_scatter(world, &values, &counts));
        Box::new(move || sums.recv().expect(ALIVE))
    }

    fn start_all_gather(&self, mine: Vec<f32>, counts: &[usize]) -> Wait<'_> {
        let counts = counts.to_vec();
        let all = self.ask(move |world| all_gather(world, &mine, &counts));
        Box::new(move || all.recv().expect(ALIVE))
    }

    fn all_gather(&self, mine: &[f64]) -> Vec<Vec<f64>> {
        let (mine, size) = (mine.to_vec(), self.size);
        let all = self.ask(move |world| {
            let mut counts = vec![0_i32; size];
            world.all_gather_into(&count(mine.len()), &mut counts[..]);
            let mut all = vec![0.0_f64; counts.iter().map(|&n| place(n)).sum()];
            let begins = begins(&counts);
            let mut parts = PartitionMut::new(&mut all[..], &counts[..], &begins[..]);
            world.all_gather_varcount_into(&mine[..], &mut parts);
            let parts = counts.iter().zip(&begins);
            parts
                .map(|(&n, &begin)| all[place(begin)..place(begin + n)].to_vec())
                .collect()
        });
        all.recv().expect(ALIVE)
    }

    fn broadcast(&self, root: usize, mut bytes: Vec<u8>) -> Vec<u8> {
        let told = self.ask(move |world| {
            let root = world.process_at_rank(count(root));
            let mut length = bytes.len() as u64;
            root.broadcast_into(&mut length);
            bytes.resize(usize::try_from(length).expect("it fits in memory there"), 0);
            for chunk in bytes.chunks_mut(BROADCAST) {
                root.broadcast_into(chunk);
            }
            bytes
        });
        told.recv().expect(ALIVE)
    }

    fn abort(&self) -> ! {
        SimpleCommunicator::world().abort(1)
    }
}

/// The sums that are for this rank, of values that are for rank 0, then for rank 1, and so on.
///
/// Every rank sends each other what is for it, which is what a reduction in a ring moves, and adds
/// in the order of ranks, which a reduction would not.
fn reduce_scatter(world: &SimpleCommunicator, values: &[f32], counts: &[usize]) -> Vec<f32> {
    let (rank, size) = (place(world.rank()), counts.len());
    let chunk = (CHUNK / size).max(1);
    let begin = |to: usize| counts[..to].iter().sum::<usize>();
    let n_chunks = counts.iter().max().map_or(0, |most| most.div_ceil(chunk));
    let mut sums = Vec::with_capacity(counts[rank]);
    for at in (0..n_chunks).map(|n| n * chunk) {
        let now = |to: usize| counts[to].saturating_sub(at).min(chunk);
        let mut send = Vec::new();
        for to in 0..size {
            let from = begin(to) + at.min(counts[to]);
            send.extend_from_slice(&values[from..from + now(to)]);
        }
        let mine = now(rank);
        let mut received = vec![0.0_f32; size * mine];
        let send_counts: Vec<i32> = (0..size).map(|to| count(now(to))).collect();
        let receive_counts = vec![count(mine); size];
        let (send_begins, receive_begins) = (begins(&send_counts), begins(&receive_counts));
        {
            let parts = Partition::new(&send[..], &send_counts[..], &send_begins[..]);
            let mut into =
                PartitionMut::new(&mut received[..], &receive_counts[..], &receive_begins[..]);
            scope(|scope| {
                let mut request =
                    world.immediate_all_to_all_varcount_into(scope, &parts, &mut into);
                // Waiting as MPI does would keep a core from those who compute.
                while let Err(unfinished) = request.test() {
                    request = unfinished;
                    thread::yield_now();
                }
            });
        }
        let (first, others) = received.split_at(mine);
        let mut sum = first.to_vec();
        for other in others.chunks_exact(mine.max(1)) {
            for (sum, x) in sum.iter_mut().zip(other) {
                *sum += x;
            }
        }
        sums.extend(sum);
    }
    sums
}

/// The values of all ranks, `counts[r]` of rank `r`.
fn all_gather(world: &SimpleCommunicator, mine: &[f32], counts: &[usize]) -> Vec<f32> {
    let mut all = vec![0.0_f32; counts.iter().sum()];
    let counts: Vec<i32> = counts.iter().map(|&n| count(n)).collect();
    let begins = begins(&counts);
    let mut parts = PartitionMut::new(&mut all[..], &counts[..], &begins[..]);
    world.all_gather_varcount_into(mine, &mut parts);
    all
}

fn begins(counts: &[i32]) -> Vec<i32> {
    let mut end = 0;
    let mut begin = |&n: &i32| {
        end += n;
        end - n
    };
    counts.iter().map(&mut begin).collect()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).expect("a bucket has fewer than 2^31 elements")
}

fn place(n: i32) -> usize {
    usize::try_from(n).expect("MPI counts from 0")
}
