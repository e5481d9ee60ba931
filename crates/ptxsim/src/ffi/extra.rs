//! Functions that a real driver lacks: settings, the last message, and counters. Find them by `dlsym`.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

use super::{CALLS, Name, guard};
use crate::device::lock;

thread_local! {
    /// The text that this thread was given last.
    static TEXT: RefCell<CString> = RefCell::default();
}

fn give(text: &str) -> *const c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    TEXT.with(|slot| {
        *slot.borrow_mut() = text;
        slot.borrow().as_ptr()
    })
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_set_check(check: c_int) -> c_int {
    guard(|device| {
        device.run_everything()?;
        device.set_check(check != 0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_set_stats(count: c_int) -> c_int {
    guard(|device| {
        device.run_everything()?;
        device.options.count = count != 0;
        device.stats.clear();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_set_seed(seed: u64) -> c_int {
    guard(|device| {
        device.run_everything()?;
        device.options.seed = seed;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_reset() -> c_int {
    guard(|device| {
        device.recover();
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_last_error() -> *const c_char {
    give(lock().last_error())
}

#[unsafe(no_mangle)]
extern "C" fn ptxsim_stats_json() -> *const c_char {
    give(&lock().stats_json())
}

/// How often this thread has called a function of the interface.
#[unsafe(no_mangle)]
extern "C" fn ptxsim_calls(name: Name) -> u64 {
    let name = name.read().unwrap_or_default();
    CALLS.with(|calls| calls.borrow().get(name.as_str()).copied().unwrap_or(0))
}
