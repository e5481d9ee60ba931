//! Where the parameters of a model lie in its files.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ModelConfig;

/// How the names of [`ModelConfig::parameter_shapes`] begin.
pub(crate) const ROOT: &str = "model.transformer.";

/// How the tensors of a family are called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// How names begin, but for what a program has put before it.
    pub(crate) root: &'static str,
    /// The rest of the name of a tensor that every model has, and only once.
    pub(crate) anchor: &'static str,
    /// The name in [`ModelConfig::parameter_shapes`] and in the file; `N` is the block and `E` the
    /// expert. Empty: names are as they are.
    pub(crate) parts: &'static [(&'static str, &'static str)],
}

/// Where a parameter lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is a tensor.
    Whole(String),
    /// It is some rows of a tensor with so many.
    Rows {
        name: String,
        rows: Range<usize>,
        of: usize,
    },
    /// It is several tensors, one behind the other.
    Stack(Vec<String>),
}

impl Place {
    /// The names of its tensors.
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::Whole(name) | Self::Rows { name, .. } => std::slice::from_ref(name),
            Self::Stack(names) => names,
        }
    }
}

/// The queries, keys and values of one tensor that holds all three, in this order.
const FUSED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Where a parameter of [`ModelConfig::parameter_shapes`] lies.
pub(crate) fn place(config: &ModelConfig, parameter: &str, shape: &[usize]) -> Place {
    let names = config.family.names();
    if names.parts.is_empty() {
        return Place::Whole(parameter.to_owned());
    }
    let name = parameter.strip_prefix(ROOT).unwrap_or(parameter);
    let (layer, name) = match name.strip_prefix("blocks.").and_then(|n| n.split_once('.')) {
        Some((layer, name)) => (layer, name),
        None => ("", name),
    };
    let (part, end) = name.rsplit_once('.').unwrap_or((name, ""));
    let is_block = !layer.is_empty();
    let found = |(from, to): &&(&str, &str)| *from == name && to.contains('N') == is_block;
    // A whole name first: what it is called may differ from its weight.
    let to = match names.parts.iter().find(found) {
        Some((_, to)) => (*to).to_owned(),
        None => {
            let found = |(from, to): &&(&str, &str)| *from == part && to.contains('N') == is_block;
            let (_, to) = names
                .parts
                .iter()
                .find(found)
                .expect("a family names every part");
            format!("{to}.{end}")
        }
    };
    let name = to.replace('N', layer);
    if name.contains(".E.") {
        let experts = 0..shape[0];
        let names = experts.map(|expert| name.replace(".E.", &format!(".{expert}.")));
        return Place::Stack(names.collect());
    }
    let called = |part: &str| names.parts.iter().find(|(from, _)| *from == part);
    let is_fused = |other: &&str| called(other).map(|(_, to)| to) == called(part).map(|(_, to)| to);
    if FUSED.contains(&part) && FUSED.iter().all(is_fused) {
        let heads = [config.n_heads, config.kv_heads(), config.kv_heads()];
        let heads = heads.map(|heads| heads * config.head_dim());
        let at = FUSED.iter().position(|fused| *fused == part).unwrap_or(0);
        let start: usize = heads[..at].iter().sum();
        return Place::Rows {
            name,
            rows: start..start + heads[at],
            of: heads.iter().sum(),
        };
    }
    Place::Whole(name)
}

/// A tensor of the files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileTensor {
    /// Its name.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Which rows of which parameters it holds, by their places in
    /// [`ModelConfig::parameter_shapes`], one behind the other.
    pub(crate) parts: Vec<(usize, Range<usize>)>,
}

/// The tensors of the files of a model, in the order of their parameters.
pub(crate) fn file_tensors(config: &ModelConfig) -> Vec<FileTensor> {
    let mut tensors: Vec<FileTensor> = Vec::new();
    // Where a tensor is that parameters share.
    let mut shared: BTreeMap<String, usize> = BTreeMap::new();
    for (at, (parameter, shape)) in config.parameter_shapes().into_iter().enumerate() {
        match place(config, &parameter, &shape) {
            Place::Whole(name) => {
                let parts = vec![(at, 0..n_rows(&shape))];
                tensors.push(FileTensor { name, shape, parts });
            }
            Place::Rows { name, of, rows } => {
                let found = *shared.entry(name.clone()).or_insert(tensors.len());
                if found == tensors.len() {
                    let shape = [&[of][..], &shape[1..]].concat();
                    let parts = Vec::new();
                    tensors.push(FileTensor { name, shape, parts });
                }
                tensors[found].parts.push((at, 0..rows.len()));
            }
            Place::Stack(names) => {
                let each = n_rows(&shape[1..]);
                tensors.extend(
                    names
                        .into_iter()
                        .enumerate()
                        .map(|(expert, name)| FileTensor {
                            name,
                            shape: shape[1..].to_vec(),
                            parts: vec![(at, expert * each..(expert + 1) * each)],
                        }),
                );
            }
        }
    }
    tensors
}

/// Rows of a tensor: of a stack of matrices those of all, of a vector its values.
pub(crate) fn n_rows(shape: &[usize]) -> usize {
    match shape {
        [n] => *n,
        [rows @ .., _] => rows.iter().product(),
        [] => 1,
    }
}

#[cfg(test)]
mod tests;
