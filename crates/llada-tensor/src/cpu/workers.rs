//! Worker threads. Work is split over outputs, never over a sum, so that results do not depend
//! on the number of threads.
//!
//! The caller works too: it publishes a job, takes tasks from a common counter like all others,
//! and at the end waits only for helpers that are inside the job. A helper that is asleep or that
//! another program keeps from running costs nothing but its share of the work.
//! Between jobs helpers look for the next one for some microseconds before they sleep: the ops of
//! a small model follow each other faster than a thread wakes up.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::{Error, Result};

/// Looks for a next job before a helper sleeps, each of some tens of nanoseconds.
const LOOKS: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Workers {
    crew: Option<Crew>,
    threads: usize,
}

impl Workers {
    /// `threads` threads, the caller among them; 0 means one per available core.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { available } else { threads };
        let crew = (threads > 1).then(|| Crew::new(threads - 1)).transpose();
        let crew = crew.map_err(|_| Error::Threads { threads })?;
        Ok(Self { crew, threads })
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(0..n)` on all workers, in no particular order.
    pub(crate) fn for_each(&self, n: usize, task: impl Fn(usize) + Sync) {
        match &self.crew {
            Some(crew) if n > 1 => crew.run(n, &task),
            _ => (0..n).for_each(task),
        }
    }

    /// Runs `task` on consecutive chunks of `data`; the last one may be shorter.
    pub(crate) fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (len, shared) = (data.len(), Shared::new(data));
        self.for_each(len.div_ceil(chunk), |i| {
            let start = i * chunk;
            // SAFETY: chunks of different tasks do not overlap.
            #[expect(unsafe_code, reason = "disjoint chunks of one slice")]
            let part = unsafe { shared.range(start, chunk.min(len - start)) };
            task(i, part);
        });
    }
}

/// Tasks that several threads take in turn.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    n: usize,
    next: AtomicUsize,
    panicked: AtomicBool,
}

impl Job<'_> {
    /// Takes tasks until none is left.
    fn work(&self) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.n {
                return;
            }
            (self.task)(at);
        }
    }
}

/// What the helpers see.
#[derive(Default)]
struct Board {
    /// Goes up with every job.
    epoch: AtomicUsize,
    /// Helpers inside the current job.
    inside: AtomicUsize,
    post: Mutex<Post>,
    wake: Condvar,
}

#[derive(Default)]
struct Post {
    /// The current job, while helpers may enter it.
    job: Option<&'static Job<'static>>,
    sleepers: usize,
    is_over: bool,
}

impl Board {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job that is not `seen`; enters it if it is still open.
    fn enter(&self, seen: &mut usize) -> Entry {
        let looks = |_: &usize| {
            std::hint::spin_loop();
            self.epoch.load(Ordering::Acquire) == *seen
        };
        (0..LOOKS).take_while(looks).for_each(drop);
        let mut post = self.post();
        while self.epoch.load(Ordering::Acquire) == *seen && !post.is_over {
            post.sleepers += 1;
            post = self.wake.wait(post).unwrap_or_else(PoisonError::into_inner);
            post.sleepers -= 1;
        }
        *seen = self.epoch.load(Ordering::Acquire);
        match post.job {
            _ if post.is_over => Entry::Over,
            None => Entry::Closed,
            Some(job) => {
                self.inside.fetch_add(1, Ordering::Relaxed);
                Entry::Open(job)
            }
        }
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            match self.enter(&mut seen) {
                Entry::Over => return,
                Entry::Closed => {}
                Entry::Open(job) => {
                    if catch_unwind(AssertUnwindSafe(|| job.work())).is_err() {
                        job.panicked.store(true, Ordering::Relaxed);
                    }
                    self.inside.fetch_sub(1, Ordering::Release);
                }
            }
        }
    }
}

enum Entry {
    Open(&'static Job<'static>),
    /// The caller has done it all.
    Closed,
    Over,
}

/// The helpers of a device.
struct Crew {
    board: Arc<Board>,
    helpers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = self.helpers.len();
        f.debug_struct("Crew").field("helpers", &n).finish()
    }
}

impl Crew {
    fn new(n_helpers: usize) -> std::io::Result<Self> {
        let mut crew = Self {
            board: Arc::default(),
            helpers: Vec::new(),
        };
        for i in 0..n_helpers {
            let board = Arc::clone(&crew.board);
            let thread = std::thread::Builder::new().name(format!("llada-{i}"));
            crew.helpers.push(thread.spawn(move || board.help())?);
        }
        Ok(crew)
    }

    /// Runs a job on the caller and the helpers. If another thread's job is under way, the caller
    /// does its own alone.
    fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        let job = Job {
            task,
            n,
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        };
        // SAFETY: the job and its task outlive every use by a helper: `result` is returned only
        // after the post was taken down and `inside` has gone back to zero, on every path.
        #[expect(unsafe_code, reason = "helpers borrow from the caller's stack")]
        let shared = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(&job) };
        if !self.open(shared) {
            job.work();
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| job.work()));
        self.board.post().job = None;
        let mut looks = 0_usize;
        while self.board.inside.load(Ordering::Acquire) > 0 {
            looks += 1;
            match looks < LOOKS {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!job.panicked.load(Ordering::Relaxed), "a task panicked");
    }

    /// Posts a job, unless there is one.
    fn open(&self, job: &'static Job<'static>) -> bool {
        let mut post = self.board.post();
        if post.job.is_some() || self.board.inside.load(Ordering::Acquire) > 0 {
            return false;
        }
        post.job = Some(job);
        self.board.epoch.fetch_add(1, Ordering::Release);
        if post.sleepers > 0 {
            self.board.wake.notify_all();
        }
        true
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.board.post().is_over = true;
        self.board.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of tasks and has none of its own.
            let _ = helper.join();
        }
    }
}

/// Rows per task, so that a task is worth handing to another thread: about 2^15 elements.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    (32_768 / row_len.max(1)).max(1)
}

/// A mutable slice that tasks write in disjoint parts that are not contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    life: std::marker::PhantomData<&'a mut [T]>,
}

#[expect(
    unsafe_code,
    reason = "disjoint parts of one output are written by several threads"
)]
// SAFETY: access goes through `range`, whose caller promises that parts in use are disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
#[expect(
    unsafe_code,
    reason = "disjoint parts of one output are written by several threads"
)]
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            life: std::marker::PhantomData,
        }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other thread may use any of these elements while the slice lives.
    #[expect(unsafe_code, reason = "the caller promises disjointness")]
    pub(crate) unsafe fn range(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "range is inside"
        );
        // SAFETY: in bounds by the line above; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// A pointer to the first of `len` elements from `start` on.
    ///
    /// # Safety
    /// No other thread may use the elements that the caller reaches through it.
    #[expect(unsafe_code, reason = "the caller promises disjointness")]
    pub(crate) unsafe fn block_ptr(&self, start: usize, len: usize) -> *mut T {
        assert!(
            start.checked_add(len).is_some_and(|end| end <= self.len),
            "block is inside"
        );
        // SAFETY: in bounds by the line above.
        unsafe { self.data.add(start) }
    }
}

#[cfg(test)]
mod tests;
