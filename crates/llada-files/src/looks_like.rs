//! What a file is that is not what its name says: a pointer of Git LFS, an error page, another
//! format.

use std::path::Path;

/// What readers expect, as [`other_than`] names it.
pub const GGUF: &str = "a GGUF file";
/// As [`GGUF`].
pub const SAFETENSORS: &str = "a safetensors file";
/// As [`GGUF`].
pub const JSON: &str = "a JSON text";

/// What a file is, and what to do about it: `FILE is WHAT: ADVICE`.
pub type Known = (&'static str, &'static str);

/// The longest header of safetensors that its readers accept, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// Text is looked for in so many bytes.
const HEAD: usize = 512;

/// What a file is that is something else than `expected` ([`GGUF`], [`SAFETENSORS`] or [`JSON`]), by
/// its name and its first bytes; nothing if it cannot be told.
///
/// For readers that have failed: a file that they can read is what it should be.
#[must_use]
pub fn other_than(expected: &str, path: &Path, bytes: &[u8]) -> Option<Known> {
    let known = by_name(path).or_else(|| by_content(bytes))?;
    (known.0 != expected).then_some(known)
}

const FETCH_AGAIN: &str = "fetch it again";

fn by_name(path: &Path) -> Option<Known> {
    let end = path.extension()?.to_str()?;
    let is_part = ["incomplete", "part", "crdownload", "partial"].contains(&end);
    is_part.then_some(("a download that broke off", FETCH_AGAIN))
}

fn by_content(bytes: &[u8]) -> Option<Known> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let begins = |starts: &[&[u8]]| starts.iter().any(|start| head.starts_with(start));
    if begins(&[b"GGUF"]) {
        let advice = "give the file itself as the model, under a name that ends in .gguf";
        return Some((GGUF, advice));
    }
    if begins(&[b"tjgg", b"lmgg", b"fmgg", b"algg"]) {
        let advice = "convert the model again with a llama.cpp of today";
        return Some(("a GGML file of the time before GGUF", advice));
    }
    const PICKLE: &str = "load it in PyTorch and save it again as safetensors";
    if begins(&[b"PK\x03\x04"]) {
        return Some(("a zip archive, as PyTorch saves its pickles", PICKLE));
    }
    if let [0x80, 2..=5, ..] = head {
        return Some(("a Python pickle, as PyTorch saves them", PICKLE));
    }
    const UNPACK: &str = "unpack it first";
    if begins(&[b"\x1f\x8b"]) {
        return Some(("compressed with gzip", UNPACK));
    }
    if begins(&[b"\x28\xb5\x2f\xfd"]) {
        return Some(("compressed with zstd", UNPACK));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    if begins(&[b"\x89HDF"]) {
        return Some(("an HDF5 file", "save the weights as safetensors"));
    }
    if begins(&[b"\x93NUMPY"]) {
        return Some(("a NumPy array", "save the weights as safetensors"));
    }
    if let (Some(length), Some(b'{')) = (bytes.first_chunk(), bytes.get(8))
        && (2..=MAX_HEADER).contains(&u64::from_le_bytes(*length))
    {
        return Some((
            SAFETENSORS,
            "give the folder that holds it, with its config.json",
        ));
    }
    text(head)
}

fn text(head: &[u8]) -> Option<Known> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("version https://") && text.contains("oid sha256:") {
        let advice = "the file itself was not fetched, run `git lfs pull` in its folder";
        return Some(("a pointer of Git LFS", advice));
    }
    if text.starts_with("/annex/objects/") {
        let advice = "the file itself was not fetched, run `git annex get` in its folder";
        return Some(("a pointer of git-annex", advice));
    }
    let html = ["<!doctype html", "<html", "<head", "<?xml"];
    if html.iter().any(|start| text.starts_with(start)) {
        let advice =
            "a server gave it instead of the file, perhaps for want of a login; fetch it again";
        return Some(("a web page (HTML)", advice));
    }
    let json = ["{\"", "{\n", "{ "];
    if json.iter().any(|start| text.starts_with(start)) {
        let advice = "give a GGUF file, or the folder that holds the weights and config.json";
        return Some((JSON, advice));
    }
    None
}

#[cfg(test)]
mod tests;
