//! Work that a device does again and again, without the host in between.

use std::fmt::Debug;

use crate::{Result, Tensor};

/// What a repeated computation depends on, besides memory that stays where it is.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Tells computations apart: two of one key ask for the same ops in the same shapes, and all
    /// small arrays that they read but [`Self::inputs`] are equal.
    pub key: &'a [u32],
    /// Small arrays whose values change from one time to the next, as ids do. The computation
    /// reads them where they are: an array is known by its address, which no other one has.
    pub inputs: &'a [&'a [u32]],
}

/// Records what a device is asked to do, and asks for all of it at once the next time.
///
/// Weights and other memory that a recorded computation reads must live as long as the recorder.
pub trait Recorder: Debug + Send + Sync {
    /// What `body` returns: by running it, or by repeating what it did under this key.
    ///
    /// # Errors
    /// Those of `body`, or if the device fails.
    fn run(&self, step: Step<'_>, body: &mut dyn FnMut() -> Result<Tensor>) -> Result<Tensor>;
}
