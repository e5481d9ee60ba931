//! Names of tensors as other programs save them.

use std::collections::{BTreeMap, BTreeSet};

use crate::family::places::Names;

/// The embedding, and the head where it is another tensor.
pub(super) const EMBEDDING: &str = "model.transformer.wte.weight";
pub(super) const HEAD: &str = "model.transformer.ff_out.weight";

/// Modules of `PyTorch` that only wrap another one: `torch.compile`, FSDP, activation checkpointing.
pub(crate) const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// The name that each tensor has in the published checkpoints of a family: without wrappers, and
/// with the family's root in place of what all names begin with (`module.`, `base_model.model.`, or
/// less than the root itself). Where that is ambiguous the names stay as they are.
pub(crate) fn published<'a>(
    family: Names,
    names: impl Iterator<Item = &'a str>,
) -> BTreeMap<&'a str, String> {
    let Names { root, anchor, .. } = family;
    let as_they_are: BTreeMap<&str, String> = names
        .map(|name| {
            let parts: Vec<&str> = name.split('.').collect();
            let kept = parts.iter().filter(|part| !WRAPPERS.contains(part));
            (name, kept.copied().collect::<Vec<_>>().join("."))
        })
        .collect();
    let is_published = |name: &String| match root {
        "" => name == anchor,
        _ => name.starts_with(root),
    };
    if as_they_are.values().any(is_published) {
        return if_distinct(as_they_are);
    }
    let mut roots = as_they_are.values().filter_map(|name| {
        let root = name.strip_suffix(anchor)?;
        (root.is_empty() || root.ends_with('.')).then(|| root.to_owned())
    });
    let (Some(found), None) = (roots.next(), roots.next()) else {
        return if_distinct(as_they_are);
    };
    let renamed = as_they_are.iter().map(|(name, plain)| {
        let rest = plain.strip_prefix(&found)?;
        Some((*name, format!("{root}{rest}")))
    });
    if_distinct(renamed.collect::<Option<_>>().unwrap_or(as_they_are))
}

/// The new names, or the old ones if two tensors would share one.
fn if_distinct(renamed: BTreeMap<&str, String>) -> BTreeMap<&str, String> {
    let distinct: BTreeSet<&String> = renamed.values().collect();
    if distinct.len() == renamed.len() {
        return renamed;
    }
    renamed
        .into_keys()
        .map(|name| (name, name.to_owned()))
        .collect()
}

/// What the error about a missing tensor says of names that the configuration does not know.
pub(super) fn hint<'a>(missing: &str, unknown: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let mut unknown: Vec<&str> = unknown.collect();
    let same_end = |name: &&str| {
        let pairs = name.bytes().rev().zip(missing.bytes().rev());
        pairs.take_while(|(a, b)| a == b).count()
    };
    unknown.sort_by_key(|name| std::cmp::Reverse(same_end(name)));
    unknown.truncate(SHOWN);
    if unknown.is_empty() {
        return String::new();
    }
    let is_adapter = |name: &&str| name.contains(".base_layer.") || name.contains(".lora_");
    let advice = match unknown.iter().any(is_adapter) {
        true => " (an adapter that was not merged: save the result of PEFT's merge_and_unload)",
        false => "",
    };
    format!("; similar names are there: {}{advice}", unknown.join(", "))
}

#[cfg(test)]
mod tests;
