//! Which files of a folder hold the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use llada_files::looks_like;

use crate::files::{INDEX, SINGLE};
use crate::{Error, Result};

/// A file that a folder with a model needs.
pub(super) fn needed(dir: &Path, missing: &'static str) -> Result<PathBuf> {
    let file = dir.join(missing);
    if file.is_file() {
        return Ok(file);
    }
    Err(Error::NotACheckpoint {
        path: dir.to_owned(),
        missing,
        hint: hint(dir, missing),
    })
}

/// The safetensors files of a folder, and what is to be said about the choice. The single file
/// comes before an index, as in transformers.
pub(super) fn weight_files(dir: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if !index.is_file() {
        return Ok((vec![needed(dir, SINGLE)?], None));
    }
    let shards = shards(&index);
    let names_single = shards.as_ref().is_ok_and(|names| names.contains(SINGLE));
    if single.is_file() && !names_single {
        let warning = format!(
            "{} holds {SINGLE} and {INDEX}: {SINGLE} is taken, as transformers does, and the shards \
             of the index are not; remove those that are not meant",
            dir.display()
        );
        return Ok((vec![single], Some(warning)));
    }
    let file = |shard: String| {
        let is_plain = shard.ends_with(".safetensors") && !shard.contains(['/', '\\']);
        if is_plain {
            return Ok(dir.join(shard));
        }
        let path = index.clone();
        Err(Error::BadShard { path, shard })
    };
    let files: Result<_> = shards?.into_iter().map(file).collect();
    Ok((files?, None))
}

/// The names of the files that an index names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let json = std::fs::read(index).map_err(Error::io("reading", index))?;
    let parsed: Index = serde_json::from_slice(&json)
        .map_err(|error| Error::json(index)(error).or_other(looks_like::JSON, index, &json))?;
    Ok(parsed.weight_map.into_values().collect())
}

/// What a folder holds in place of a file that is missing.
fn hint(dir: &Path, missing: &str) -> String {
    if dir.join(missing).is_symlink() {
        return format!("; {missing} is a link to a file that is not there: fetch it again");
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> = names.collect();
    /// Ends of names, and what to do.
    const KNOWN: [(&[&str], &str); 5] = [
        (
            &["incomplete", "part", "partial", "crdownload"],
            "a download that broke off: fetch it again",
        ),
        (
            &["bin", "pt", "pth", "ckpt"],
            "a Python pickle, as PyTorch saves them: load it in PyTorch and save it again as \
             safetensors (save_pretrained)",
        ),
        (
            &["h5", "msgpack", "npz"],
            "weights for another framework: save them as safetensors",
        ),
        (&["gguf"], "a GGUF file: give the file itself as the model"),
        (
            &["safetensors"],
            "weights under a name that is not looked for: rename it if it is the whole model, or \
             fetch the index of the shards",
        ),
    ];
    for (ends, what) in KNOWN {
        let is_one = |name: &&String| {
            let end = name.rsplit_once('.').map(|(_, end)| end);
            end.is_some_and(|end| ends.contains(&end)) && *name != SINGLE
        };
        if let Some(name) = names.iter().find(is_one) {
            return format!("; {name} is {what}");
        }
    }
    String::new()
}
