//! What is tried again after a failure, and how often.

use std::time::Duration;

use anyhow::Result;

/// Failures in a row before a download gives up.
const ATTEMPTS: u32 = 5;

/// Why a request gave nothing.
pub(super) enum Failure {
    /// It may work the next time: a broken connection, a busy server.
    Passing(anyhow::Error),
    /// It will not.
    Lasting(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Lasting(error)
    }
}

/// Counts the failures in a row.
pub(super) struct Retries {
    backoff: Duration,
    failures: u32,
}

impl Retries {
    pub(super) fn new(backoff: Duration) -> Self {
        let failures = 0;
        Self { backoff, failures }
    }

    /// Something went well in between.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure, if there is to be no other attempt.
    pub(super) fn pause(&mut self, failure: Failure) -> Result<()> {
        self.failures += 1;
        match failure {
            Failure::Passing(_) if self.failures < ATTEMPTS => {
                std::thread::sleep(self.backoff * 2_u32.pow(self.failures - 1));
                Ok(())
            }
            Failure::Passing(error) | Failure::Lasting(error) => Err(error),
        }
    }
}

/// Attempts until one works or there is no more hope.
pub(super) fn retrying<T>(
    backoff: Duration,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T> {
    let mut retries = Retries::new(backoff);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => retries.pause(failure)?,
        }
    }
}
