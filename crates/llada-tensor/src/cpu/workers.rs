//! Worker threads. Work is split over outputs, never over a sum, so that results do not depend
//! on the number of threads.

use rayon::prelude::*;

use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct Workers {
    pool: Option<rayon::ThreadPool>,
    threads: usize,
}

impl Workers {
    /// `threads` workers; 0 means one per available core. One thread runs on the caller.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { available } else { threads };
        let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1)
            .then(build)
            .transpose()
            .map_err(|_| Error::Threads { threads })?;
        Ok(Self { pool, threads })
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(0..n)` on all workers, in no particular order.
    pub(crate) fn for_each(&self, n: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if n > 1 => {
                pool.install(|| (0..n).into_par_iter().with_max_len(1).for_each(&task));
            }
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
        match &self.pool {
            Some(pool) if data.len() > chunk => pool.install(|| {
                data.par_chunks_mut(chunk)
                    .enumerate()
                    .for_each(|(i, part)| task(i, part));
            }),
            _ => data
                .chunks_mut(chunk)
                .enumerate()
                .for_each(|(i, part)| task(i, part)),
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
