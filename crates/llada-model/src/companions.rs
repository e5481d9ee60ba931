//! The small files that a model's folder needs beside its weights and `config.json`, and a folder
//! that is made of it as well: tokenizer, chat templates, defaults of generation, code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, ModelConfig, Result};

/// Names that transformers and its tokenizers look for.
const NAMES: [&str; 12] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];
/// Folder of the chat templates that have names, `NAME.jinja`.
const TEMPLATES: &str = "additional_chat_templates";
/// Field of `config.json` that names the code of a model.
const AUTO_MAP: &str = "auto_map";

/// Copies what belongs to a model from its folder `source` into the folder `target`, which is made:
/// the files of the tokenizer, chat templates, `generation_config.json` and, if `auto_map` of
/// `config` names code of the folder, its `.py` files. `source` is `None` for a model that is no
/// folder, such as a GGUF file.
///
/// `auto_map` is taken out of `config` if a file that it names is not there, since transformers
/// could not load the new folder; the names of these files are returned.
///
/// # Errors
/// [`Error::Io`].
pub fn carry_along(
    source: Option<&Path>,
    target: &Path,
    config: &mut ModelConfig,
) -> Result<Vec<String>> {
    let code = code_of(config.other.get(AUTO_MAP));
    let is_there = |name: &String| source.is_some_and(|folder| folder.join(name).is_file());
    let missing: Vec<String> = code
        .iter()
        .filter(|name| !is_there(name))
        .cloned()
        .collect();
    if !missing.is_empty() {
        config.other.remove(AUTO_MAP);
    }
    let Some(source) = source else {
        return Ok(missing);
    };
    let mut files: Vec<PathBuf> = NAMES.iter().map(PathBuf::from).collect();
    files.extend(
        names(&source.join(TEMPLATES), "jinja")?.map(|name| Path::new(TEMPLATES).join(name)),
    );
    if !code.is_empty() && missing.is_empty() {
        // Files that those of `auto_map` import lie beside them.
        files.extend(names(source, "py")?);
    }
    for file in files.iter().filter(|file| source.join(file).is_file()) {
        let (from, to) = (source.join(file), target.join(file));
        let folder = to.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(Error::io("creating", folder))?;
        let content = fs::read(&from).map_err(Error::io("reading", &from))?;
        crate::files::write_file(&to, &content)?;
    }
    Ok(missing)
}

/// The files that an `auto_map` names: `"FILE.Class"`, one or a list of them. Of
/// `"ORG/NAME--FILE.Class"` the file is in another repository of the Hub, where transformers finds
/// it.
fn code_of(auto_map: Option<&Value>) -> BTreeSet<String> {
    let classes = auto_map.and_then(Value::as_object).into_iter().flatten();
    let classes = classes.flat_map(|(_, class)| match class {
        Value::Array(several) => several.iter().collect(),
        one => vec![one],
    });
    let file = |class: &str| {
        let (module, _) = class.rsplit_once('.')?;
        (!module.contains("--")).then(|| format!("{}.py", module.replace('.', "/")))
    };
    classes.filter_map(Value::as_str).filter_map(file).collect()
}

/// Names of the files of a folder with an extension; none if there is no such folder.
fn names(folder: &Path, extension: &str) -> Result<impl Iterator<Item = PathBuf> + use<>> {
    let mut names = BTreeSet::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder).map_err(Error::io("reading", folder))? {
            let name = PathBuf::from(entry.map_err(Error::io("reading", folder))?.file_name());
            if name.extension().is_some_and(|end| end == extension) {
                names.insert(name);
            }
        }
    }
    Ok(names.into_iter())
}

#[cfg(test)]
mod tests;
