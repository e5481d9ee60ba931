//! Checkpoints of the families beside dense LLaDA, and what is recorded of them.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use llada::model::Error;
use llada::{Device, LladaModel, ModelSource, OpenOptions, Precision};
use serde_json::Value;

use crate::files::{Case, Tensors, root};

/// A family's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Family {
    /// Its name, that of the folder.
    pub(crate) name: String,
    /// Below [`root`].
    folder: String,
}

/// All families that something is recorded of; at least one.
pub(crate) fn families() -> Vec<Family> {
    let below = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| root().join(folder).join(name).join("models").is_dir())
            .collect();
        names.sort();
        names
    };
    let start = if root().join("families").is_dir() {
        "families/"
    } else {
        ""
    };
    let families: Vec<Family> = below(start)
        .into_iter()
        .map(|name| Family {
            folder: format!("{start}{name}"),
            name,
        })
        .collect();
    assert!(!families.is_empty(), "no families in {}", root().display());
    families
}

impl Family {
    /// A file or a folder of the family.
    pub(crate) fn path(&self, of: &str) -> PathBuf {
        root().join(&self.folder).join(of)
    }

    /// Tensors of the family.
    pub(crate) fn tensors(&self, path: &str) -> Tensors {
        Tensors::open(&format!("{}/{path}", self.folder))
    }

    /// The JSON files of a folder of the family; none if it has no such folder.
    pub(crate) fn cases(&self, folder: &str) -> Vec<Case> {
        match self.path(folder).is_dir() {
            true => crate::files::cases(&format!("{}/{folder}", self.folder)),
            false => Vec::new(),
        }
    }

    /// `report.json`.
    pub(crate) fn report(&self) -> Value {
        let bytes = std::fs::read(self.path("report.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The models with recorded logits.
    pub(crate) fn models(&self) -> Vec<String> {
        let names = crate::files::names(&format!("{}/forward", self.folder), "safetensors");
        for name in &names {
            assert!(
                self.path(&format!("models/{name}")).is_dir(),
                "{self:?}: {name}"
            );
        }
        names
    }

    /// A model; the mask is the one that recorded runs were given, where its files do not say it.
    pub(crate) fn source(&self, model: &str) -> ModelSource {
        let dir = self.path(&format!("models/{model}"));
        match ModelSource::open(&dir) {
            Err(Error::NoMaskToken { .. }) => {}
            source => return source.unwrap(),
        }
        let cases = self.cases("generate").into_iter();
        let mask = cases.map(|case| case.count("mask_id")).next().unwrap();
        let mask_token_id = Some(u32::try_from(mask).unwrap());
        ModelSource::open_with(&dir, OpenOptions { mask_token_id }).unwrap()
    }

    pub(crate) fn load(&self, model: &str, device: &Device, precision: Precision) -> LladaModel {
        let source = self.source(model);
        source.trainable(device, precision).unwrap()
    }
}

/// The block size of an attention mask `[.., L, L]`, 1 where a query sees a key; `None` if the tensor
/// is not there.
pub(crate) fn block_size(tensors: &Tensors, name: &str) -> Option<NonZeroUsize> {
    let allowed = tensors.has(name).then(|| tensors.rows(name))?;
    let size = allowed[0].iter().take_while(|&&sees| sees == 1).count();
    for (i, row) in allowed.iter().enumerate() {
        let sees = |j: usize| u32::from(j / size <= i / size);
        let expected = (0..row.len()).map(sees);
        assert!(
            row.iter().copied().eq(expected),
            "blocks of {size}: row {i}"
        );
    }
    NonZeroUsize::new(size)
}
