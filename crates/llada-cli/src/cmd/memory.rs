//! Memory, as far as the system tells.

use anyhow::Result;

/// The most memory that this process has held; nothing where the system does not tell.
pub(super) fn peak_bytes() -> Option<u64> {
    read("/proc/self/status", "VmHWM:")
}

/// The memory of this machine, or of the container that this process is in.
pub(super) fn total_bytes() -> Option<u64> {
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok());
    let all = read("/proc/meminfo", "MemTotal:");
    all.map(|all| limit.map_or(all, |limit: u64| limit.min(all)))
}

/// What is free, with the system's caches of files.
#[cfg(feature = "serve")]
pub(super) fn available_bytes() -> Option<u64> {
    read("/proc/meminfo", "MemAvailable:")
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

/// A number of bytes for people.
pub(super) fn gigabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    match bytes {
        b if b < 1e8 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

/// A field in kB of one of the system's files.
fn read(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
