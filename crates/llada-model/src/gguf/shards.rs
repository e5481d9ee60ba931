//! A model that llama.cpp has split into several files, `NAME-00001-of-00003.gguf` and so on: the
//! first holds the keys of the model, each of them some tensors.
//!
//! Source: `llama_split_path` of llama.cpp, `gguf_writer.py` of the `gguf` package.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use llada_files::looks_like;
use memmap2::Mmap;

use super::fault;
use super::header::Header;
use super::keys::Keys;
use crate::files::map_file;
use crate::{Error, Result};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const N_TENSORS: &str = "split.tensors.count";

/// A file behind the first.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) map: Arc<Mmap>,
}

/// Opens the files of a model of which one is given: the first with the tensors of all, and those
/// behind it.
///
/// # Errors
/// One that names the file that is missing, or that is not a part of this model.
pub(super) fn open(path: &Path) -> Result<(Keys, Vec<File>)> {
    let given = open_one(path)?;
    let count = match given.number(COUNT)? {
        None | Some(0 | 1) => return Ok((given, Vec::new())),
        Some(count) => count,
    };
    let paths = siblings(&given, count)?;
    let mut first = match given.number(NUMBER)? {
        Some(0) => given,
        _ => part(&paths, 0)?,
    };
    let mut others = Vec::new();
    for index in 1..paths.len() {
        let Keys { map, path, header } = part(&paths, index)?;
        for (name, mut entry) in header.tensors {
            entry.file = index;
            if first.header.tensors.insert(name.clone(), entry).is_some() {
                let (first, second) = (first.path.clone(), path);
                return Err(Error::TensorTwice {
                    name,
                    first,
                    second,
                });
            }
        }
        others.push(File { path, map });
    }
    let n_tensors = first.header.tensors.len();
    match first.number(N_TENSORS)? {
        Some(n) if n as usize != n_tensors => {
            let expected = format!("as many as the files hold, {n_tensors}");
            Err(first.fault(N_TENSORS, n.to_string(), expected))
        }
        _ => Ok((first, others)),
    }
}

fn open_one(path: &Path) -> Result<Keys> {
    let map = Arc::new(map_file(path)?);
    let header =
        Header::parse(&map, path).map_err(|error| error.or_other(looks_like::GGUF, path, &map))?;
    let path = path.to_owned();
    Ok(Keys { map, path, header })
}

/// The names of all files, which are there.
fn siblings(given: &Keys, count: u32) -> Result<Vec<PathBuf>> {
    let name = given.path.file_name().unwrap_or_default().to_string_lossy();
    let end = format!("-of-{count:05}.gguf");
    let stem = name.strip_suffix(&*end).and_then(|stem| {
        let (stem, number) = stem.split_at_checked(stem.len().checked_sub(6)?)?;
        let is_number = |number: &str| number.bytes().all(|x| x.is_ascii_digit());
        number
            .strip_prefix('-')
            .filter(|n| is_number(n))
            .map(|_| stem)
    });
    let Some(stem) = stem else {
        let got = format!("{count} files, and the name of this one does not tell the others");
        let expected = format!("a name that ends in -00001{end}");
        return Err(given.fault(COUNT, got, expected));
    };
    let path = |number: u32| {
        given
            .path
            .with_file_name(format!("{stem}-{number:05}{end}"))
    };
    // No list of names that is longer than the folder.
    if let Some(missing) = (1..=count).map(path).find(|path| !path.is_file()) {
        let got = format!("{count} files, of which {} is missing", missing.display());
        return Err(given.fault(COUNT, got, "all of them in one folder"));
    }
    Ok((1..=count).map(path).collect())
}

/// One of the files, which says that it is.
fn part(paths: &[PathBuf], index: usize) -> Result<Keys> {
    let keys = open_one(&paths[index])?;
    for (key, expected) in [(NUMBER, index), (COUNT, paths.len())] {
        let got = keys.number(key)?;
        if got.map(|n| n as usize) != Some(expected) {
            let got = got.map_or_else(|| "missing".to_owned(), |n| n.to_string());
            let place = format!("key {key}");
            return Err(fault(&keys.path, place, got, expected.to_string()));
        }
    }
    Ok(keys)
}
