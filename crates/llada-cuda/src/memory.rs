//! Device memory: a caching allocator, and the storage of tensors and scratch on top of it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cudarc::driver::{CudaContext, CudaStream, result};
use llada_tensor::backend::DeviceMemory;
use llada_tensor::{Error, Result};

use crate::error::{failed, is_out_of_memory, not_recordable};

/// Addresses of memory start on a multiple of so many bytes, and sizes are rounded up to it.
const ALIGNMENT: usize = 512;
/// Copies up to this size leave through the driver's own staging buffer, which is one call.
const SMALL: usize = 64 << 10;
/// Bytes of a pinned buffer that larger copies go through.
const CHUNK: usize = 4 << 20;

/// Memory of one device, handed out again as soon as it comes back: all work is in order on one
/// stream, so that its next owner also uses it later.
pub(crate) struct Allocator {
    name: String,
    cuda: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Unused memory by its size.
    free: Mutex<Free>,
    /// Unused memory of recordings: it is theirs alone, since they write to it whenever they are
    /// repeated, and they share it, since they are repeated one after the other.
    free_of_recordings: Mutex<Free>,
    /// For copies between host and device, one at a time.
    pinned: Mutex<Option<Pinned>>,
    /// Held by a thread that has the stream for itself: what others ask for must wait.
    exclusive: RwLock<()>,
    held: Mutex<Held>,
}

/// Bytes that the driver gave, in use or not.
#[derive(Default)]
struct Held {
    now: u64,
    peak: u64,
}

/// What a thread has of the stream of one allocator.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Hold {
    /// Whether it has the stream for itself.
    is_exclusive: bool,
    /// Whether it records the stream.
    is_recording: bool,
    /// Guards of [`Allocator::bind`] that it holds.
    bound: u32,
}

thread_local! {
    /// What this thread has, by the address of the allocator, which outlives its guards; an
    /// allocator of whose stream it has nothing has no entry.
    static HOLDS: RefCell<Vec<(usize, Hold)>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, no other thread can have the stream for itself.
pub(crate) struct Bound<'a> {
    allocator: &'a Allocator,
    _guard: Option<RwLockReadGuard<'a, ()>>,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.allocator.update_hold(|hold| hold.bound -= 1);
    }
}

/// While it lives, only the calls of this thread reach the stream.
pub(crate) struct Exclusive<'a> {
    allocator: &'a Allocator,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl Exclusive<'_> {
    /// Says that this thread's calls are recorded from now on.
    pub(crate) fn record(&self) -> Recording<'_> {
        self.allocator.update_hold(|hold| hold.is_recording = true);
        Recording(self.allocator)
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        self.allocator.update_hold(|hold| hold.is_exclusive = false);
    }
}

/// While it lives, the calls of this thread are recorded.
pub(crate) struct Recording<'a>(&'a Allocator);

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.update_hold(|hold| hold.is_recording = false);
    }
}

/// Addresses of unused memory by its size.
type Free = BTreeMap<usize, Vec<u64>>;

/// Page-locked host memory.
struct Pinned(*mut u8);

// SAFETY: plain memory, and its owner is behind a mutex.
unsafe impl Send for Pinned {}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("device", &self.name)
            .finish_non_exhaustive()
    }
}

/// Rounds up to one of eight sizes per power of two, as the host's pool does.
fn size_class(bytes: usize) -> usize {
    let units = bytes.div_ceil(ALIGNMENT).max(1);
    let step = (units.next_power_of_two() / 16).max(1);
    units.div_ceil(step) * step * ALIGNMENT
}

impl Allocator {
    pub(crate) fn new(name: String, cuda: Arc<CudaContext>, stream: Arc<CudaStream>) -> Self {
        Self {
            name,
            cuda,
            stream,
            free: Mutex::default(),
            free_of_recordings: Mutex::default(),
            pinned: Mutex::default(),
            exclusive: RwLock::default(),
            held: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn stream(&self) -> &CudaStream {
        &self.stream
    }

    /// The most bytes that the driver gave at a time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.held().peak
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of a driver call on this device.
    pub(crate) fn failed(
        &self,
        call: &'static str,
    ) -> impl Fn(cudarc::driver::DriverError) -> Error {
        move |error| failed(&self.name, call, error)
    }

    /// Makes the device current on this thread, which every driver call needs, and waits for a
    /// thread that has the stream for itself; while the guard lives, none can get it. It comes
    /// before any other lock, since the thread that has the stream takes those as well.
    pub(crate) fn bind(&self) -> Result<Bound<'_>> {
        // Once per thread: a second one could wait for a thread that waits for the first.
        let hold = self.hold();
        let is_first = !hold.is_exclusive && hold.bound == 0;
        let wait = || {
            self.exclusive
                .read()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let _guard = is_first.then(wait);
        self.update_hold(|hold| hold.bound += 1);
        let allocator = self;
        let bound = Bound { allocator, _guard };
        self.cuda
            .bind_to_thread()
            .map_err(self.failed("cuCtxSetCurrent"))?;
        Ok(bound)
    }

    /// Makes this thread the only one whose calls reach the stream.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        let _guard = self
            .exclusive
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.update_hold(|hold| hold.is_exclusive = true);
        let allocator = self;
        Exclusive { allocator, _guard }
    }

    /// What this thread has of the stream.
    fn hold(&self) -> Hold {
        let key = std::ptr::from_ref(self).addr();
        let found = HOLDS.with_borrow(|holds| holds.iter().find(|(at, _)| *at == key).copied());
        found.map_or(Hold::default(), |(_, hold)| hold)
    }

    fn update_hold(&self, update: impl FnOnce(&mut Hold)) {
        let (key, mut hold) = (std::ptr::from_ref(self).addr(), self.hold());
        update(&mut hold);
        HOLDS.with_borrow_mut(|holds| {
            holds.retain(|(at, _)| *at != key);
            if hold != Hold::default() {
                holds.push((key, hold));
            }
        });
    }

    /// Whether this thread is the only one.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.hold().is_exclusive
    }

    /// Whether this thread records: nothing that it asks for is done before it is repeated.
    pub(crate) fn is_recording(&self) -> bool {
        self.hold().is_recording
    }

    /// Memory of at least `bytes` bytes with unspecified contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the numbers, once unused memory was given back in vain.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let size = size_class(bytes);
        let is_recorded = self.is_recording();
        let recycled = self.free(is_recorded).get_mut(&size).and_then(Vec::pop);
        let pointer = match recycled {
            Some(pointer) => pointer,
            None => self.allocate(size)?,
        };
        Ok(Memory {
            pointer,
            bytes,
            size,
            is_recorded,
            home: Arc::clone(self),
        })
    }

    fn allocate(&self, size: usize) -> Result<u64> {
        let _bound = self.bind()?;
        // SAFETY: the size is not zero and the context is current.
        let allocate = || unsafe { result::malloc_sync(size) };
        let first = allocate();
        let result = match first {
            Err(error) if is_out_of_memory(error) && !self.is_recording() => {
                self.trim(false)?;
                allocate()
            }
            other => other,
        };
        if result.is_ok() {
            let mut held = self.held();
            held.now += size as u64;
            held.peak = held.peak.max(held.now);
        }
        result.map_err(|error| match is_out_of_memory(error) {
            false => failed(&self.name, "cuMemAlloc", error),
            true => {
                let (free, total) = result::mem_get_info().unwrap_or((0, 0));
                let (device, needed) = (self.name.clone(), size);
                Error::OutOfMemory {
                    device,
                    needed,
                    free,
                    total,
                }
            }
        })
    }

    /// Gives all unused memory of the recordings or of all else back to the driver, once the stream
    /// is done with it. The device is current on this thread.
    fn trim(&self, is_recorded: bool) -> Result<()> {
        let synchronized = self.stream.synchronize();
        synchronized.map_err(self.failed("cuStreamSynchronize"))?;
        let unused = std::mem::take(&mut *self.free(is_recorded));
        for (size, pointers) in unused {
            for pointer in pointers {
                // SAFETY: it came from `allocate`, nobody holds it, and no launch that uses it is
                // left.
                unsafe { result::free_sync(pointer) }.map_err(self.failed("cuMemFree"))?;
                self.held().now -= size as u64;
            }
        }
        Ok(())
    }

    /// Waits until everything that was asked of the device is done.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let _bound = self.bind()?;
        self.stream
            .synchronize()
            .map_err(self.failed("cuStreamSynchronize"))
    }

    fn expect_not_recording(&self) -> Result<()> {
        match self.is_recording() {
            true => Err(not_recordable(
                "copies between host and device are not repeated",
            )),
            false => Ok(()),
        }
    }

    fn free(&self, is_recorded: bool) -> MutexGuard<'_, Free> {
        let free = match is_recorded {
            true => &self.free_of_recordings,
            false => &self.free,
        };
        free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies bytes to the device; they may change as soon as this returns.
    pub(crate) fn upload(&self, pointer: u64, bytes: &[u8]) -> Result<()> {
        self.expect_not_recording()?;
        let _bound = self.bind()?;
        let stream = self.stream.cu_stream();
        if bytes.len() <= SMALL {
            // SAFETY: the caller owns the memory at `pointer`; the driver has taken pageable bytes
            // when it returns.
            return unsafe { result::memcpy_htod_async(pointer, bytes, stream) }
                .map_err(self.failed("cuMemcpyHtoD"));
        }
        self.with_pinned(|pinned| {
            for (at, chunk) in bytes.chunks(CHUNK).enumerate() {
                pinned[..chunk.len()].copy_from_slice(chunk);
                let target = pointer + (at * CHUNK) as u64;
                // SAFETY: as above; the pinned bytes stay until the stream has been waited for.
                unsafe { result::memcpy_htod_async(target, &pinned[..chunk.len()], stream) }
                    .map_err(self.failed("cuMemcpyHtoD"))?;
                self.synchronize()?;
            }
            Ok(())
        })
    }

    /// Copies bytes from the device, after all that was asked before.
    pub(crate) fn download(&self, pointer: u64, out: &mut [u8]) -> Result<()> {
        self.expect_not_recording()?;
        let _bound = self.bind()?;
        let stream = self.stream.cu_stream();
        self.with_pinned(|pinned| {
            for (at, chunk) in out.chunks_mut(CHUNK).enumerate() {
                let source = pointer + (at * CHUNK) as u64;
                let pinned = &mut pinned[..chunk.len()];
                // SAFETY: the caller owns the memory at `pointer`; the pinned bytes are not
                // touched until the stream has been waited for.
                unsafe { result::memcpy_dtoh_async(pinned, source, stream) }
                    .map_err(self.failed("cuMemcpyDtoH"))?;
                self.synchronize()?;
                chunk.copy_from_slice(pinned);
            }
            Ok(())
        })
    }

    /// Runs `work` with [`CHUNK`] bytes of page-locked memory, which no other thread uses.
    fn with_pinned<T>(&self, work: impl FnOnce(&mut [u8]) -> Result<T>) -> Result<T> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.is_none() {
            // SAFETY: the context is current.
            let memory = unsafe { result::malloc_host(CHUNK, 0) };
            let memory = memory.map_err(self.failed("cuMemHostAlloc"))?.cast::<u8>();
            // SAFETY: it is `CHUNK` bytes; a slice of them must be initialized.
            unsafe { memory.write_bytes(0, CHUNK) };
            *pinned = Some(Pinned(memory));
        }
        let memory = pinned.as_ref().expect("it was just made").0;
        // SAFETY: it is `CHUNK` initialized bytes that only the holder of the lock uses.
        work(unsafe { std::slice::from_raw_parts_mut(memory, CHUNK) })
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        // A device that fails now has nothing left to lose.
        let _ = self.cuda.bind_to_thread();
        let _ = self.trim(false);
        let _ = self.trim(true);
        let pinned = self
            .pinned
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Pinned(memory)) = pinned.take() {
            // SAFETY: it came from `malloc_host`, and no copy is in flight after `trim`.
            let _ = unsafe { result::free_host(memory.cast()) };
        }
    }
}

/// Memory on the device; back to its allocator when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    pointer: u64,
    bytes: usize,
    size: usize,
    /// Whether it was taken while the stream was recorded.
    is_recorded: bool,
    home: Arc<Allocator>,
}

/// Memory that an op uses for itself.
pub(crate) type Scratch = Memory;

impl Memory {
    /// Address on the device, on a multiple of 512 bytes.
    pub(crate) fn pointer(&self) -> u64 {
        self.pointer
    }

    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "a copy ends past its memory"
        );
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut free = self.home.free(self.is_recorded);
        free.entry(self.size).or_default().push(self.pointer);
    }
}

impl DeviceMemory for Memory {
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len());
        if bytes.is_empty() {
            return Ok(());
        }
        self.home.upload(self.pointer + at as u64, bytes)
    }

    fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        self.check(at, out.len());
        if out.is_empty() {
            return Ok(());
        }
        self.home.download(self.pointer + at as u64, out)
    }

    fn copy(
        &mut self,
        at: usize,
        source: &dyn DeviceMemory,
        source_at: usize,
        len: usize,
    ) -> Result<()> {
        let op = "copy";
        let what = "the source is memory of another device";
        let source: &Self = source
            .as_any()
            .downcast_ref()
            .filter(|source: &&Self| Arc::ptr_eq(&source.home, &self.home))
            .ok_or(Error::InvalidArgument { op, what })?;
        self.check(at, len);
        source.check(source_at, len);
        if len == 0 {
            return Ok(());
        }
        let _bound = self.home.bind()?;
        let (to, from) = (self.pointer + at as u64, source.pointer + source_at as u64);
        // SAFETY: both ranges were checked, and are of two pieces of memory.
        unsafe { result::memcpy_dtod_async(to, from, len, self.home.stream.cu_stream()) }
            .map_err(self.home.failed("cuMemcpyDtoD"))
    }

    fn clear(&mut self, at: usize, len: usize) -> Result<()> {
        self.check(at, len);
        if len == 0 {
            return Ok(());
        }
        let _bound = self.home.bind()?;
        let pointer = self.pointer + at as u64;
        // SAFETY: the range was checked.
        unsafe { result::memset_d8_async(pointer, 0, len, self.home.stream.cu_stream()) }
            .map_err(self.home.failed("cuMemsetD8"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(all(test, feature = "nvcc"))]
mod tests;
