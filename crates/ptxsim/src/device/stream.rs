//! Streams: queues of work that run when somebody waits for them.
//!
//! Nothing runs before it must, so a program that reads a result without waiting for it sees old bytes.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use super::module::Function;
use super::{Code, Device, Shape, code};
use crate::exec::block::shared_bytes;

/// The default stream.
pub(crate) const LEGACY: u64 = 0;
/// Bytes of pageable copies that a queue may hold before it runs.
const HELD_BYTES: usize = 256 << 20;

/// One entry of a queue.
#[derive(Clone)]
pub(crate) enum Work {
    Launch {
        function: Arc<Function>,
        shape: Shape,
        params: Arc<[u8]>,
    },
    /// Bytes taken from pageable memory when the copy was called.
    Upload {
        dst: u64,
        bytes: Arc<[u8]>,
    },
    /// Bytes read from the host when the copy runs.
    UploadLate {
        dst: u64,
        src: u64,
        bytes: usize,
    },
    Download {
        dst: u64,
        src: u64,
        bytes: usize,
    },
    Copy {
        dst: u64,
        src: u64,
        bytes: usize,
    },
    /// `width` is 1, 2 or 4 bytes.
    Set {
        dst: u64,
        value: u32,
        width: usize,
        count: usize,
    },
    Free {
        address: u64,
    },
    Record {
        event: u64,
        serial: u64,
    },
    Wait {
        stream: u64,
        position: u64,
    },
    Call {
        function: unsafe extern "C" fn(*mut c_void),
        data: u64,
    },
}

/// A queue.
pub(crate) struct Stream {
    queue: VecDeque<Work>,
    /// Entries that have ever been put in.
    queued: u64,
    /// Entries that have run.
    done: u64,
    held: usize,
    /// Waits for the default stream, and the default stream for it.
    blocking: bool,
    /// The graph that work goes to instead.
    pub(crate) capture: Option<u64>,
}

impl Stream {
    pub(crate) fn new(blocking: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            queued: 0,
            done: 0,
            held: 0,
            blocking,
            capture: None,
        }
    }

    pub(crate) fn forget(&mut self) {
        self.queue.clear();
        self.done = self.queued;
        self.held = 0;
        self.capture = None;
    }

    fn push(&mut self, work: Work) {
        if let Work::Upload { bytes, .. } = &work {
            self.held += bytes.len();
        }
        self.queue.push_back(work);
        self.queued += 1;
    }
}

/// A point in a stream.
#[derive(Debug, Default)]
pub(crate) struct Event {
    stream: u64,
    position: u64,
    serial: u64,
    time: Option<Instant>,
    capture: Option<u64>,
}

/// Handles 1 and 2 name the default stream too.
fn normal(stream: u64) -> u64 {
    if stream <= 2 { LEGACY } else { stream }
}

impl Device {
    pub(crate) fn new_stream(&mut self, blocking: bool) -> u64 {
        let handle = self.handle();
        self.streams.insert(handle, Stream::new(blocking));
        handle
    }

    /// Runs what is left of a stream, and removes it.
    pub(crate) fn destroy_stream(&mut self, stream: u64) -> Result<(), Code> {
        self.run_all_of(stream)?;
        self.streams
            .remove(&stream)
            .map(|_| ())
            .ok_or(code::INVALID_HANDLE)
    }

    fn stream(&mut self, stream: u64) -> Result<&mut Stream, Code> {
        self.streams
            .get_mut(&normal(stream))
            .ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn capture_of(&mut self, stream: u64) -> Result<Option<u64>, Code> {
        Ok(self.stream(stream)?.capture)
    }

    /// Sets the graph that a stream's work goes to.
    pub(crate) fn set_capture(&mut self, stream: u64, capture: Option<u64>) -> Result<(), Code> {
        self.stream(stream)?.capture = capture;
        Ok(())
    }

    /// Puts work at the end of a stream.
    pub(crate) fn enqueue(&mut self, stream: u64, work: Work) -> Result<(), Code> {
        self.health()?;
        let handle = normal(stream);
        if let Some(capture) = self.stream(handle)?.capture {
            return self.graphs.add(capture, work);
        }
        self.meet_default(handle)?;
        let stream = self.stream(handle)?;
        stream.push(work);
        if stream.held > HELD_BYTES {
            self.run_all_of(handle)?;
        }
        Ok(())
    }

    /// The default stream and blocking streams wait for each other.
    fn meet_default(&mut self, stream: u64) -> Result<(), Code> {
        if !self.stream(stream)?.blocking {
            return Ok(());
        }
        let wanted = |handle: u64| {
            if stream == LEGACY {
                handle != LEGACY
            } else {
                handle == LEGACY
            }
        };
        let waits: Vec<Work> = self
            .streams
            .iter()
            .filter(|(handle, other)| {
                wanted(**handle) && other.blocking && other.done < other.queued
            })
            .map(|(&handle, other)| Work::Wait {
                stream: handle,
                position: other.queued,
            })
            .collect();
        for wait in waits {
            self.stream(stream)?.push(wait);
        }
        Ok(())
    }

    /// Runs a stream to its end.
    pub(crate) fn run_all_of(&mut self, stream: u64) -> Result<(), Code> {
        let stream = normal(stream);
        if self.stream(stream)?.capture.is_some() {
            return Err(code::STREAM_CAPTURE_UNSUPPORTED);
        }
        let position = self.stream(stream)?.queued;
        self.run_to(stream, position);
        self.health()
    }

    /// Runs every stream.
    pub(crate) fn run_everything(&mut self) -> Result<(), Code> {
        let handles: Vec<(u64, u64)> = self
            .streams
            .iter()
            .map(|(&handle, s)| (handle, s.queued))
            .collect();
        for (handle, position) in handles {
            self.run_to(handle, position);
        }
        self.health()
    }

    pub(crate) fn is_idle(&mut self, stream: u64) -> Result<bool, Code> {
        let stream = self.stream(stream)?;
        Ok(stream.done >= stream.queued)
    }

    /// Runs one entry, so that a program that polls gets on.
    pub(crate) fn run_one(&mut self, stream: u64) -> Result<(), Code> {
        let position = self.stream(stream)?.done + 1;
        self.run_to(normal(stream), position);
        self.health()
    }

    fn run_to(&mut self, handle: u64, position: u64) {
        loop {
            let Some(stream) = self.streams.get_mut(&handle) else {
                return;
            };
            if stream.done >= position {
                return;
            }
            let Some(work) = stream.queue.pop_front() else {
                return;
            };
            stream.done += 1;
            if let Work::Upload { bytes, .. } = &work {
                stream.held -= bytes.len();
            }
            if let Work::Wait { stream, position } = work {
                self.run_to(stream, position);
            } else if self.health().is_ok() {
                self.perform(work);
            }
        }
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Launch {
                function,
                shape,
                params,
            } => self.execute(&function, &shape, &params),
            Work::Upload { dst, bytes } => {
                if self.target(dst, bytes.len(), "copy to the device") {
                    // SAFETY: `target` has checked the range.
                    unsafe {
                        std::ptr::copy_nonoverlapping(bytes.as_ptr(), dst as *mut u8, bytes.len());
                    };
                }
            }
            Work::UploadLate { dst, src, bytes } => {
                if self.target(dst, bytes, "copy to the device") {
                    // SAFETY: `target` has checked the target; the caller of the copy keeps the source.
                    unsafe {
                        std::ptr::copy_nonoverlapping(src as *const u8, dst as *mut u8, bytes);
                    };
                }
            }
            Work::Download { dst, src, bytes } => {
                if self.source(src, bytes, "copy from the device") {
                    // SAFETY: `source` has checked the source; the caller of the copy keeps the target.
                    unsafe {
                        std::ptr::copy_nonoverlapping(src as *const u8, dst as *mut u8, bytes);
                    };
                }
            }
            Work::Copy { dst, src, bytes } => {
                if self.source(src, bytes, "copy on the device")
                    && self.target(dst, bytes, "copy on the device")
                {
                    // SAFETY: both ranges have been checked; they may overlap.
                    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, bytes) };
                }
            }
            Work::Set {
                dst,
                value,
                width,
                count,
            } => {
                if self.target(dst, width * count, "memset") {
                    for i in 0..count {
                        let at = (dst as *mut u8).wrapping_add(i * width);
                        // SAFETY: `target` has checked `count` elements of this width.
                        unsafe {
                            std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), at, width);
                        };
                    }
                }
            }
            Work::Free { address } => {
                if !self.memory.free(address) {
                    self.fail(
                        code::INVALID_VALUE,
                        &format!("free of {address:#x}, where nothing is allocated"),
                    );
                }
            }
            Work::Record { event, serial } => {
                if let Some(event) = self
                    .events
                    .get_mut(&event)
                    .filter(|event| event.serial == serial)
                {
                    event.time = Some(Instant::now());
                }
            }
            // SAFETY: the program passed the function and its argument to be called in stream order.
            Work::Call { function, data } => unsafe { function(data as *mut c_void) },
            Work::Wait { .. } => {}
        }
    }

    fn target(&mut self, address: u64, bytes: usize, what: &str) -> bool {
        self.range(address, bytes, true, what)
    }

    fn source(&mut self, address: u64, bytes: usize, what: &str) -> bool {
        self.range(address, bytes, false, what)
    }

    fn range(&mut self, address: u64, bytes: usize, write: bool, what: &str) -> bool {
        match self.memory.host_range(address, bytes, write) {
            Ok(()) => true,
            Err(why) => {
                self.fail(
                    700,
                    &format!("{what} of {bytes} bytes at {address:#x}: {why}"),
                );
                false
            }
        }
    }

    pub(crate) fn new_event(&mut self) -> u64 {
        let handle = self.handle();
        self.events.insert(handle, Event::default());
        handle
    }

    /// Marks a point of a stream.
    pub(crate) fn record_event(&mut self, event: u64, stream: u64) -> Result<(), Code> {
        self.health()?;
        let stream = normal(stream);
        let capture = self.stream(stream)?.capture;
        let entry = self.events.get_mut(&event).ok_or(code::INVALID_HANDLE)?;
        entry.serial += 1;
        entry.capture = capture;
        entry.time = None;
        let serial = entry.serial;
        if capture.is_some() {
            return Ok(());
        }
        self.enqueue(stream, Work::Record { event, serial })?;
        let position = self.stream(stream)?.queued;
        if let Some(entry) = self.events.get_mut(&event) {
            entry.stream = stream;
            entry.position = position;
        }
        Ok(())
    }

    /// Makes a stream wait for an event.
    pub(crate) fn wait_event(&mut self, stream: u64, event: u64) -> Result<(), Code> {
        self.health()?;
        let entry = self.events.get(&event).ok_or(code::INVALID_HANDLE)?;
        if let Some(capture) = entry.capture {
            // The stream joins the capture.
            return if self.graphs.is_capturing(capture) {
                self.set_capture(stream, Some(capture))
            } else {
                Ok(())
            };
        }
        if entry.serial == 0 || self.stream(stream)?.capture.is_some() {
            return Ok(());
        }
        let entry = &self.events[&event];
        let wait = Work::Wait {
            stream: entry.stream,
            position: entry.position,
        };
        self.enqueue(stream, wait)
    }

    /// Runs a stream up to an event.
    pub(crate) fn synchronize_event(&mut self, event: u64) -> Result<(), Code> {
        let entry = self.events.get(&event).ok_or(code::INVALID_HANDLE)?;
        let (stream, position) = (entry.stream, entry.position);
        self.run_to(stream, position);
        self.health()
    }

    pub(crate) fn query_event(&mut self, event: u64) -> Result<(), Code> {
        let entry = self.events.get(&event).ok_or(code::INVALID_HANDLE)?;
        let (stream, position) = (entry.stream, entry.position);
        if self.streams.get(&stream).is_none_or(|s| s.done >= position) {
            return self.health();
        }
        self.run_one(stream)?;
        Err(code::NOT_READY)
    }

    /// Milliseconds between two events that have happened.
    pub(crate) fn elapsed(&self, start: u64, end: u64) -> Result<f32, Code> {
        let time = |event: u64| {
            self.events
                .get(&event)
                .ok_or(code::INVALID_HANDLE)?
                .time
                .ok_or(code::NOT_READY)
        };
        Ok(time(end)?
            .saturating_duration_since(time(start)?)
            .as_secs_f32()
            * 1e3)
    }

    /// Checks and queues a launch.
    pub(crate) fn launch(
        &mut self,
        function: u64,
        shape: Shape,
        params: &[u8],
        stream: u64,
    ) -> Result<(), Code> {
        let function = Arc::clone(self.functions.get(&function).ok_or(code::INVALID_HANDLE)?);
        let threads: u64 = shape.block.iter().map(|&n| u64::from(n)).product();
        let bad = shape.grid.contains(&0)
            || threads == 0
            || threads > u64::from(function.kernel.max_threads.min(1024))
            || shape.block[2] > 64
            || shape.grid[0] > 0x7fff_ffff
            || shape.grid[1] > 0xffff
            || shape.grid[2] > 0xffff
            || i32::try_from(shape.dynamic).map_or(true, |bytes| bytes > function.max_dynamic())
            || shared_bytes(&function.kernel, shape.dynamic) > super::MAX_DYNAMIC_SHARED as usize;
        if bad {
            self.complain(&format!(
                "launch of {}: grid {:?}, block {:?} with {} bytes of dynamic shared memory is not possible \
                 (at most {} threads and {} bytes)",
                function.kernel.name,
                shape.grid,
                shape.block,
                shape.dynamic,
                function.kernel.max_threads,
                function.max_dynamic()
            ));
            return Err(code::INVALID_VALUE);
        }
        self.enqueue(
            stream,
            Work::Launch {
                function,
                shape,
                params: params.into(),
            },
        )
    }
}
