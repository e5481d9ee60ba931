//! The device: memory, modules, streams, and the first error.

pub(crate) mod graph;
pub(crate) mod module;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::exec::{self, Launch};
use crate::memory::Memory;
use crate::stats::Stats;
use graph::Graphs;
use module::{Function, Module};
use stream::{Event, Stream};

/// `CUresult` values, by the driver's names without their prefix.
pub(crate) mod code {
    pub(crate) const INVALID_VALUE: i32 = 1;
    pub(crate) const OUT_OF_MEMORY: i32 = 2;
    pub(crate) const INVALID_DEVICE: i32 = 101;
    pub(crate) const NO_BINARY_FOR_GPU: i32 = 209;
    pub(crate) const INVALID_PTX: i32 = 218;
    pub(crate) const INVALID_HANDLE: i32 = 400;
    pub(crate) const NOT_FOUND: i32 = 500;
    pub(crate) const NOT_READY: i32 = 600;
    pub(crate) const NOT_SUPPORTED: i32 = 801;
    pub(crate) const STREAM_CAPTURE_UNSUPPORTED: i32 = 900;
    pub(crate) const UNKNOWN: i32 = 999;
}

/// A `CUresult` that is not success.
pub(crate) type Code = i32;

/// Dynamic shared memory that a block may have, if the function opts in.
pub(crate) const MAX_DYNAMIC_SHARED: i32 = 166_912;
/// Shared memory of a block that does not opt in.
pub(crate) const DEFAULT_SHARED: i32 = 49_152;

/// What the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) check: bool,
    pub(crate) seed: u64,
    pub(crate) memory: usize,
    pub(crate) threads: usize,
    /// Where to append a line for each launch.
    pub(crate) stats: Option<String>,
    pub(crate) count: bool,
}

impl Options {
    fn from_environment() -> Self {
        let number = |name: &str| {
            std::env::var(name)
                .ok()
                .and_then(|value| value.parse::<u64>().ok())
        };
        let stats = std::env::var("PTXSIM_STATS")
            .ok()
            .filter(|path| !path.is_empty());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            check: number("PTXSIM_CHECK").unwrap_or(0) != 0,
            seed: number("PTXSIM_SEED").unwrap_or(0),
            memory: number("PTXSIM_MEMORY")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(4 << 30),
            threads: number("PTXSIM_THREADS")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(cores),
            count: stats.is_some(),
            stats,
        }
    }
}

/// Everything behind the driver's handles.
pub(crate) struct Device {
    pub(crate) options: Options,
    pub(crate) memory: Memory,
    pub(crate) modules: BTreeMap<u64, Module>,
    pub(crate) functions: BTreeMap<u64, Arc<Function>>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) graphs: Graphs,
    /// Page-locked host memory: start and bytes.
    pub(crate) pinned: BTreeMap<u64, usize>,
    pub(crate) stats: BTreeMap<String, Stats>,
    /// The error that every call returns from now on.
    sticky: Option<Code>,
    last_error: String,
    next_handle: u64,
}

impl Device {
    fn new() -> Self {
        let options = Options::from_environment();
        let memory = Memory::new(options.memory, options.check);
        Self {
            options,
            memory,
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            streams: BTreeMap::from([(stream::LEGACY, Stream::new(true))]),
            events: BTreeMap::new(),
            graphs: Graphs::default(),
            pinned: BTreeMap::new(),
            stats: BTreeMap::new(),
            sticky: None,
            last_error: String::new(),
            next_handle: 0x1000,
        }
    }

    /// A handle that no other object has.
    pub(crate) fn handle(&mut self) -> u64 {
        self.next_handle += 16;
        self.next_handle
    }

    /// The first error of a kernel, if there was one.
    pub(crate) fn health(&self) -> Result<(), Code> {
        self.sticky.map_or(Ok(()), Err)
    }

    pub(crate) fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Forgets the error, and all work that is queued.
    pub(crate) fn recover(&mut self) {
        self.sticky = None;
        self.last_error.clear();
        for stream in self.streams.values_mut() {
            stream.forget();
        }
    }

    /// Says what went wrong, on standard error and to `ptxsim_last_error`.
    #[expect(
        clippy::print_stderr,
        reason = "the driver's interface has no room for a message"
    )]
    pub(crate) fn complain(&mut self, message: &str) {
        eprintln!("ptxsim: {message}");
        message.clone_into(&mut self.last_error);
    }

    /// An error that stays.
    pub(crate) fn fail(&mut self, code: Code, message: &str) {
        self.complain(message);
        self.sticky.get_or_insert(code);
    }

    pub(crate) fn set_check(&mut self, check: bool) {
        self.options.check = check;
        self.memory.check = check;
    }

    /// Runs a kernel now.
    pub(crate) fn execute(&mut self, function: &Function, shape: &Shape, params: &[u8]) {
        let launch = Launch {
            kernel: &function.kernel,
            params,
            grid: shape.grid,
            block: shape.block,
            dynamic: shape.dynamic,
            memory: &self.memory,
            check: self.options.check,
            stats: self.options.count,
            seed: self.options.seed,
            threads: self.options.threads,
        };
        match exec::run(&launch) {
            Ok(stats) => self.record(&function.kernel.name, &stats),
            Err(failure) => self.fail(failure.code, &failure.message),
        }
    }

    fn record(&mut self, kernel: &str, stats: &Stats) {
        self.stats.entry(kernel.to_owned()).or_default().add(stats);
        let Some(path) = &self.options.stats else {
            return;
        };
        let line = stats.json(kernel);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            let message = format!("writing {path}: {error}");
            self.options.stats = None;
            self.complain(&message);
        }
    }

    /// Counters of all kernels, as a JSON array.
    pub(crate) fn stats_json(&self) -> String {
        let kernels: Vec<String> = self
            .stats
            .iter()
            .map(|(name, stats)| stats.json(name))
            .collect();
        format!("[{}]", kernels.join(","))
    }

    /// Whether host memory is page-locked, so that copies of it are asynchronous.
    pub(crate) fn is_pinned(&self, address: u64, bytes: usize) -> bool {
        self.pinned
            .range(..=address)
            .next_back()
            .is_some_and(|(&start, &size)| address + bytes as u64 <= start + size as u64)
    }
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic: usize,
}

/// The one device of this process.
pub(crate) fn lock() -> MutexGuard<'static, Device> {
    static DEVICE: OnceLock<Mutex<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Mutex::new(Device::new()));
    device
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
