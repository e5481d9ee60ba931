//! The device behind the interface: memory, modules, streams and what is queued on them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::block::Grid;
use crate::inst::Module;
use crate::memory::{Arena, Fault};
use crate::stats::Stats;
use crate::{launch, ptx};

/// Results of the driver API.
pub(crate) mod code {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const INVALID_VALUE: i32 = 1;
    pub(crate) const OUT_OF_MEMORY: i32 = 2;
    pub(crate) const INVALID_DEVICE: i32 = 101;
    pub(crate) const NO_BINARY: i32 = 209;
    pub(crate) const INVALID_PTX: i32 = 218;
    pub(crate) const INVALID_HANDLE: i32 = 400;
    pub(crate) const NOT_FOUND: i32 = 500;
    pub(crate) const NOT_READY: i32 = 600;
    pub(crate) const ILLEGAL_ADDRESS: i32 = 700;
    pub(crate) const MISALIGNED_ADDRESS: i32 = 716;
    pub(crate) const LAUNCH_FAILED: i32 = 719;
    pub(crate) const NOT_PERMITTED: i32 = 800;
    pub(crate) const CAPTURE_UNSUPPORTED: i32 = 900;
    pub(crate) const UNKNOWN: i32 = 999;
}

/// Dynamic shared memory of a block: without asking, and at most.
pub(crate) const SHARED_DEFAULT: u32 = 48 << 10;
pub(crate) const SHARED_MOST: u32 = 166_912;

/// A range of the host's memory that is read or written when its turn comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostRange {
    pub(crate) address: usize,
    pub(crate) bytes: usize,
}

impl HostRange {
    /// # Safety
    /// The range must be readable.
    pub(crate) unsafe fn read(self) -> Vec<u8> {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.bytes) }.to_vec()
    }
}

/// Something that a stream does.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Bytes that were taken when the copy was asked for.
    Write {
        to: u64,
        bytes: Vec<u8>,
    },
    /// Bytes of page-locked memory, as they are when the copy is done.
    WritePinned {
        to: u64,
        from: HostRange,
    },
    Read {
        from: u64,
        to: HostRange,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        n: u64,
    },
    Launch(Launch),
    Free(u64),
    Record(usize),
    Wait(usize),
    Graph(Vec<Command>),
}

/// A launch with its parameters.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) module: usize,
    pub(crate) kernel: usize,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_bytes: u32,
    pub(crate) parameters: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) queue: Vec<Command>,
    /// What is recorded for a graph.
    pub(crate) capture: Option<Vec<Command>>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) kernel: usize,
    pub(crate) dynamic_bytes: u32,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Event {
    /// Stream on which it waits to be recorded.
    pub(crate) pending: Option<usize>,
    pub(crate) at: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) arena: Arena,
    pub(crate) modules: BTreeMap<usize, Module>,
    pub(crate) functions: BTreeMap<usize, Function>,
    pub(crate) streams: BTreeMap<usize, Stream>,
    pub(crate) events: BTreeMap<usize, Event>,
    pub(crate) graphs: BTreeMap<usize, Vec<Command>>,
    /// Page-locked memory by its address.
    pub(crate) pinned: BTreeMap<usize, Box<[u64]>>,
    next_handle: usize,
    /// The error that ended the context.
    pub(crate) sticky: i32,
    pub(crate) last_error: String,
    pub(crate) stats: BTreeMap<String, Stats>,
    pub(crate) checked: bool,
    seed: u64,
    stats_file: Option<std::fs::File>,
}

/// The stream of the handle 0.
pub(crate) const DEFAULT_STREAM: usize = 0;

/// The device of this process.
pub(crate) fn device() -> MutexGuard<'static, Device> {
    static DEVICE: OnceLock<Mutex<Device>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| Mutex::new(Device::from_environment()));
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

impl Device {
    fn from_environment() -> Self {
        let bytes = variable("PTXSIM_MEMORY").unwrap_or(4 << 30);
        let mut arena = Arena::new(bytes).expect("address space for the device's memory");
        let checked = variable("PTXSIM_CHECK").is_some_and(|on| on != 0);
        arena.set_checked(checked);
        let stats_file = std::env::var_os("PTXSIM_STATS").map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.expect("the file of PTXSIM_STATS can be written")
        });
        Self {
            arena,
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            streams: BTreeMap::from([(DEFAULT_STREAM, Stream::default())]),
            events: BTreeMap::new(),
            graphs: BTreeMap::new(),
            pinned: BTreeMap::new(),
            next_handle: 0x100,
            sticky: code::SUCCESS,
            last_error: String::new(),
            stats: BTreeMap::new(),
            checked,
            seed: variable("PTXSIM_SEED").unwrap_or(0),
            stats_file,
        }
    }

    /// A number that no other object has.
    pub(crate) fn handle(&mut self) -> usize {
        self.next_handle += 0x10;
        self.next_handle
    }

    pub(crate) fn set_checked(&mut self, checked: bool) {
        self.checked = checked;
        self.arena.set_checked(checked);
    }

    /// Notes an error, and says it.
    pub(crate) fn report(&mut self, text: String) {
        say(&text);
        self.last_error = text;
    }

    /// Loads PTX; the handle of its module.
    pub(crate) fn load(&mut self, text: &str) -> Result<usize, i32> {
        let arena = &mut self.arena;
        let mut full = false;
        let parsed = ptx::parse(text, &mut |bytes, _align| {
            let address = arena.allocate(bytes);
            full |= address.is_none();
            address.unwrap_or(0)
        });
        let module = match parsed {
            Ok(_) if full => return Err(code::OUT_OF_MEMORY),
            Ok(module) => module,
            Err(error) => {
                self.report(error.to_string());
                return Err(code::INVALID_PTX);
            }
        };
        let global = self.arena.global();
        for (variable, address) in &module.globals {
            let mut bytes = variable.init.clone();
            bytes.resize(variable.bytes as usize, 0);
            global.copy_in(*address, &bytes);
        }
        let handle = self.handle();
        self.modules.insert(handle, module);
        Ok(handle)
    }

    /// Queues a command, or records it.
    pub(crate) fn enqueue(&mut self, stream: usize, command: Command) -> i32 {
        if self.sticky != code::SUCCESS {
            return self.sticky;
        }
        let Some(stream) = self.streams.get_mut(&stream) else {
            return code::INVALID_HANDLE;
        };
        match &mut stream.capture {
            Some(recorded) => recorded.push(command),
            None => stream.queue.push(command),
        }
        code::SUCCESS
    }

    /// Does what is queued on a stream.
    pub(crate) fn run(&mut self, stream: usize) -> i32 {
        let Some(queue) = self.streams.get_mut(&stream) else {
            return code::INVALID_HANDLE;
        };
        if queue.capture.is_some() {
            return code::CAPTURE_UNSUPPORTED;
        }
        for command in std::mem::take(&mut queue.queue) {
            if self.sticky == code::SUCCESS {
                self.execute(&command);
            }
        }
        self.sticky
    }

    /// Does everything that is queued.
    pub(crate) fn run_all(&mut self) -> i32 {
        let streams: Vec<usize> = self.streams.keys().copied().collect();
        for stream in streams {
            let is_recorded = self
                .streams
                .get(&stream)
                .is_some_and(|s| s.capture.is_some());
            if !is_recorded {
                self.run(stream);
            }
        }
        self.sticky
    }

    fn execute(&mut self, command: &Command) {
        let global = self.arena.global();
        let done = match command {
            Command::Write { to, bytes } => global.copy_in(*to, bytes),
            Command::WritePinned { to, from } => {
                // SAFETY: page-locked memory that is still there: freeing it waits for the stream.
                global.copy_in(*to, &unsafe { from.read() })
            }
            Command::Read { from, to } => {
                let mut bytes = vec![0; to.bytes];
                let done = global.copy_out(*from, &mut bytes);
                // SAFETY: memory of the caller of a copy that waits, or page-locked memory.
                unsafe { (to.address as *mut u8).copy_from(bytes.as_ptr(), bytes.len()) };
                done
            }
            Command::Copy { to, from, bytes } => global.copy(*to, *from, *bytes),
            Command::Fill { to, pattern, n } => global.copy_in(*to, &pattern.repeat(*n as usize)),
            Command::Launch(launch) => {
                self.launch(launch);
                true
            }
            Command::Free(address) => self.arena.free(*address),
            Command::Record(event) => {
                let done = Event {
                    pending: None,
                    at: Some(Instant::now()),
                };
                self.events.insert(*event, done);
                true
            }
            Command::Wait(event) => {
                let pending = self.events.get(event).and_then(|event| event.pending);
                if let Some(stream) = pending {
                    self.run(stream);
                }
                true
            }
            Command::Graph(commands) => {
                for command in commands {
                    if self.sticky == code::SUCCESS {
                        self.execute(command);
                    }
                }
                true
            }
        };
        if !done {
            self.report(format!(
                "a copy outside of allocated memory: {}",
                describe(command)
            ));
            self.sticky = code::ILLEGAL_ADDRESS;
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let global = self.arena.global();
        let Some(module) = self.modules.get(&launch.module) else {
            self.sticky = code::INVALID_HANDLE;
            return;
        };
        let kernel = &module.kernels[launch.kernel];
        let grid = Grid {
            module,
            kernel,
            grid: launch.grid,
            block: launch.block,
            dynamic_bytes: launch.dynamic_bytes,
            parameters: launch.parameters.clone(),
            global,
            checked: self.checked,
            counts: self.stats_file.is_some(),
            seed: self.seed,
        };
        let name = kernel.name.clone();
        match launch::run(&grid) {
            Ok(stats) => {
                if let Some(file) = &mut self.stats_file {
                    // Without the file there are no statistics, and nothing else is lost.
                    let _ = writeln!(file, "{}", stats.json(&name));
                }
                *self.stats.entry(name).or_default() += stats;
            }
            Err(fault) => {
                self.sticky = match fault {
                    Fault::Address(_) => code::ILLEGAL_ADDRESS,
                    Fault::Misaligned(_) => code::MISALIGNED_ADDRESS,
                    Fault::Launch(_) => code::LAUNCH_FAILED,
                };
                self.report(fault.text().to_owned());
            }
        }
    }

    /// Whether an address is in page-locked memory.
    pub(crate) fn is_pinned(&self, address: usize) -> bool {
        let below = self.pinned.range(..=address).next_back();
        below.is_some_and(|(start, memory)| address < start + 8 * memory.len())
    }
}

fn describe(command: &Command) -> String {
    match command {
        Command::Write { to, bytes } => format!("{} bytes to {to:#x}", bytes.len()),
        Command::WritePinned { to, from } => format!("{} bytes to {to:#x}", from.bytes),
        Command::Read { from, to } => format!("{} bytes from {from:#x}", to.bytes),
        Command::Copy { to, from, bytes } => format!("{bytes} bytes from {from:#x} to {to:#x}"),
        Command::Fill { to, n, .. } => format!("{n} elements to {to:#x}"),
        _ => String::new(),
    }
}

/// A library that stands for a driver has no other way to tell what went wrong.
#[expect(clippy::print_stderr, reason = "a driver that explains its errors")]
fn say(text: &str) {
    eprintln!("ptxsim: {text}");
}
