//! Results on standard output, everything else on standard error.

use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// Writes a result. A reader that went away is no error.
///
/// # Errors
/// Whatever else keeps it from being written, such as a full disk.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing standard output"),
    }
}

/// Writes a line for people to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
