//! The device under test, and its functions that a real driver lacks.

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaModule, CudaStream};
use cudarc::nvrtc::Ptx;

/// One test at a time: settings and errors are the process's.
static TURN: Mutex<()> = Mutex::new(());

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut u8;
    fn dlsym(library: *mut u8, name: *const c_char) -> *mut u8;
}

/// A function that the loaded library exports; tests link no other copy of it.
fn symbol(name: &CStr) -> *mut u8 {
    // SAFETY: both are called with strings that end with a zero byte; the library stays loaded.
    let found = unsafe { dlsym(dlopen(c"libcuda.so".as_ptr(), 1), name.as_ptr()) };
    assert!(!found.is_null(), "libcuda.so is not the software device");
    found
}

fn call(name: &CStr, value: u64) {
    // SAFETY: the functions that tests name take one integer, in a register that holds any width of it.
    let code =
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn(u64) -> c_int>(symbol(name))(value) };
    assert_eq!(code, 0);
}

fn text(name: &CStr) -> String {
    // SAFETY: the functions that tests name take nothing and return a string.
    let text =
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> *const c_char>(symbol(name))() };
    // SAFETY: the string stays until the next call of this thread.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// The device, for one test.
pub(crate) struct Device {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) stream: Arc<CudaStream>,
    _turn: MutexGuard<'static, ()>,
}

impl Device {
    pub(crate) fn new(check: bool) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        call(c"ptxsim_reset", 0);
        call(c"ptxsim_set_check", u64::from(check));
        call(c"ptxsim_set_stats", 0);
        call(c"ptxsim_set_seed", 0);
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        Self {
            context,
            stream,
            _turn: turn,
        }
    }

    pub(crate) fn module(&self, ptx: &str) -> Arc<CudaModule> {
        self.context
            .load_module(Ptx::from_src(ptx))
            .unwrap_or_else(|error| panic!("{error:?}: {}", last_error()))
    }

    /// Waits, and shows the device's message if that fails.
    #[track_caller]
    pub(crate) fn finish(&self) {
        if let Err(error) = self.stream.synchronize() {
            panic!("{error:?}: {}", last_error());
        }
    }
}

pub(crate) fn last_error() -> String {
    text(c"ptxsim_last_error")
}

pub(crate) fn stats() -> String {
    text(c"ptxsim_stats_json")
}

pub(crate) fn set_stats(on: bool) {
    call(c"ptxsim_set_stats", u64::from(on));
}

pub(crate) fn set_seed(seed: u64) {
    call(c"ptxsim_set_seed", seed);
}
