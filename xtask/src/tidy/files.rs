//! How large a file may be.

use super::{File, GENERATED, Offence};

/// Extensions of the files that are read as text and have a limit of lines.
pub(super) const TEXT: &[&str] = &["rs", "py", "md", "cu", "cuh", "h"];

const MAX_LINES: usize = 800;
const WARN_LINES: usize = 600;

const MIB: u64 = 1 << 20;
const MAX_FILE_BYTES: u64 = 16 * MIB;
/// Of all assets and goldens together.
const MAX_ASSET_BYTES: u64 = 40 * MIB;

pub(super) fn check(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in files {
        if let Some(lines) = lines(file).filter(|&lines| lines > MAX_LINES) {
            let wrong = format!("{lines} lines, over {MAX_LINES}");
            offences.push(Offence::new(&file.path, wrong, "split it"));
        }
        if file.bytes > MAX_FILE_BYTES {
            let wrong = format!("{} bytes, over {} MiB", file.bytes, MAX_FILE_BYTES / MIB);
            offences.push(Offence::new(
                &file.path,
                wrong,
                "make it smaller or keep it elsewhere",
            ));
        }
    }
    let asset_bytes: u64 = files
        .iter()
        .filter(|file| is_asset(file))
        .map(|file| file.bytes)
        .sum();
    if asset_bytes > MAX_ASSET_BYTES {
        let limit = MAX_ASSET_BYTES / MIB;
        let wrong = format!("{asset_bytes} bytes of assets and goldens, over {limit} MiB");
        offences.push(Offence::new(
            "assets",
            wrong,
            "remove what no test or command reads",
        ));
    }
    offences
}

/// Files that will be too long soon.
pub(super) fn warnings(files: &[File]) -> Vec<Offence> {
    let mut warnings = Vec::new();
    for file in files {
        if let Some(lines) =
            lines(file).filter(|lines| (WARN_LINES + 1..=MAX_LINES).contains(lines))
        {
            let wrong = format!("{lines} lines, aim at {WARN_LINES} or fewer");
            warnings.push(Offence::new(&file.path, wrong, "think of a split"));
        }
    }
    warnings
}

/// None of what is no text, or was written by a program.
fn lines(file: &File) -> Option<usize> {
    let text = file.text.as_ref()?;
    (!text.starts_with(GENERATED)).then(|| text.lines().count())
}

fn is_asset(file: &File) -> bool {
    file.path.starts_with("assets/") || file.path.contains("/goldens/")
}

#[cfg(test)]
mod tests;
