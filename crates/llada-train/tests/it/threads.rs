//! Ranks that are threads of one process.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use llada_train::{Communicator, Wait};

/// What the ranks have said and not all have heard.
#[derive(Debug, Default)]
struct Board {
    talk: Mutex<Talk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Talk {
    /// By exchange: what each rank said, and how many have heard it.
    exchanges: BTreeMap<u64, (BTreeMap<usize, Vec<u8>>, usize)>,
    has_failed: bool,
}

/// A rank that is a thread.
#[derive(Debug)]
pub(crate) struct ThreadRank {
    rank: usize,
    size: usize,
    board: Arc<Board>,
    /// Exchanges that this rank has begun.
    begun: Cell<u64>,
}

impl ThreadRank {
    /// All ranks of a run.
    pub(crate) fn group(size: usize) -> Vec<Self> {
        let board = Arc::new(Board::default());
        let rank = |rank| Self {
            rank,
            size,
            board: Arc::clone(&board),
            begun: Cell::new(0),
        };
        (0..size).map(rank).collect()
    }

    /// Lets those who wait for this rank panic, as MPI ends them.
    pub(crate) fn fail(&self) {
        self.board.talk.lock().unwrap().has_failed = true;
        self.board.changed.notify_all();
    }

    fn say(&self, bytes: Vec<u8>) -> u64 {
        let exchange = self.begun.replace(self.begun.get() + 1);
        let mut talk = self.board.talk.lock().unwrap();
        let (said, _) = talk.exchanges.entry(exchange).or_default();
        said.insert(self.rank, bytes);
        self.board.changed.notify_all();
        exchange
    }

    /// What all ranks said.
    fn hear(&self, exchange: u64) -> Vec<Vec<u8>> {
        let mut talk = self.board.talk.lock().unwrap();
        while talk.exchanges[&exchange].0.len() < self.size {
            let failed = talk.has_failed;
            // Not while the lock is held, which would poison it.
            if failed {
                drop(talk);
                panic!("another rank has failed");
            }
            talk = self.board.changed.wait(talk).unwrap();
        }
        let (said, n_heard) = talk.exchanges.get_mut(&exchange).unwrap();
        let all = said.values().cloned().collect();
        *n_heard += 1;
        if *n_heard == self.size {
            talk.exchanges.remove(&exchange);
        }
        all
    }
}

fn numbers<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    let words = bytes.chunks_exact(size_of::<T>());
    words.map(bytemuck::pod_read_unaligned).collect()
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start_reduce_scatter(&self, values: Vec<f32>, counts: &[usize]) -> Wait<'_> {
        assert_eq!(values.len(), counts.iter().sum::<usize>());
        let exchange = self.say(bytemuck::cast_slice(&values).to_vec());
        let begin: usize = counts[..self.rank].iter().sum();
        let n = counts[self.rank];
        Box::new(move || {
            let all = self.hear(exchange);
            let parts = all.iter().map(|bytes| numbers::<f32>(bytes));
            let parts = parts.map(|values| values[begin..begin + n].to_vec());
            let add = |sum: Vec<f32>, part: Vec<f32>| {
                sum.iter().zip(&part).map(|(sum, x)| sum + x).collect()
            };
            parts.reduce(add).unwrap()
        })
    }

    fn start_all_gather(&self, mine: Vec<f32>, counts: &[usize]) -> Wait<'_> {
        assert_eq!(mine.len(), counts[self.rank]);
        let exchange = self.say(bytemuck::cast_slice(&mine).to_vec());
        Box::new(move || numbers(&self.hear(exchange).concat()))
    }

    fn all_gather(&self, mine: &[f64]) -> Vec<Vec<f64>> {
        let exchange = self.say(bytemuck::cast_slice(mine).to_vec());
        let all = self.hear(exchange);
        all.iter().map(|bytes| numbers(bytes)).collect()
    }

    fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Vec<u8> {
        let exchange = self.say(bytes);
        self.hear(exchange).swap_remove(root)
    }

    fn abort(&self) -> ! {
        self.fail();
        panic!("the run is aborted")
    }
}
