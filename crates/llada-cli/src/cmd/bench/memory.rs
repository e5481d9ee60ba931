//! Memory, as far as the system tells.

use anyhow::Result;

/// The most memory that this process has held; nothing where the system does not tell.
pub(super) fn peak_bytes() -> Option<u64> {
    read("/proc/self/status", "VmHWM:")
}

/// That `bytes` fit: without the check a system that overcommits ends the process without a word.
pub(super) fn check_room(bytes: u64, what: &str) -> Result<()> {
    let available = read("/proc/meminfo", "MemAvailable:").unwrap_or(u64::MAX);
    anyhow::ensure!(
        bytes <= available,
        "{what} needs about {} of memory, and {} are free",
        gigabytes(bytes),
        gigabytes(available)
    );
    Ok(())
}

fn gigabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let gigabytes = bytes as f64 / 1e9;
    format!("{gigabytes:.1} GB")
}

/// A field in kB of one of the system's files.
fn read(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
