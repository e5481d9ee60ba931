//! The driver's C interface: the part that cudarc's `result` and `safe` layers call.
//!
//! Every function catches panics, and answers `CUDA_ERROR_UNKNOWN` instead.

mod context;
mod extra;
mod graph;
mod launch;
mod memory;
mod module;
mod stream;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device::{Code, Device, code, lock};

/// Runs the body of a function of the interface, with the device locked.
fn guard(body: impl FnOnce(&mut Device) -> Result<(), Code>) -> i32 {
    match catch_unwind(AssertUnwindSafe(|| body(&mut lock()))) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => code::UNKNOWN,
    }
}

thread_local! {
    /// How often this thread has called each function.
    static CALLS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

fn count_call(name: &'static str) {
    // A thread that is ending counts no more.
    let _ = CALLS.try_with(|calls| *calls.borrow_mut().entry(name).or_default() += 1);
}

/// Where the caller wants a result.
#[repr(transparent)]
struct Out<T>(*mut T);

impl<T> Out<T> {
    fn set(&self, value: T) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: the interface asks for a pointer to a place for the result; null was refused above.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// As [`Self::set`], for a result that the caller may do without.
    fn set_if_wanted(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write(value) };
        }
    }
}

/// A name that the caller passes.
#[repr(transparent)]
struct Name(*const c_char);

impl Name {
    fn read(&self) -> Result<String, Code> {
        if self.0.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: the interface asks for a string that ends with a zero byte; null was refused above.
        let text = unsafe { CStr::from_ptr(self.0) };
        Ok(text.to_string_lossy().into_owned())
    }
}

/// Defines exported functions; each body sees the locked device.
macro_rules! api {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) |$device:ident| $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the driver's names")]
            unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
                $crate::ffi::count_call(stringify!($name));
                $crate::ffi::guard(|$device| $body)
            }
        )*
    };
}
use api;
