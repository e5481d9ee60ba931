//! What a step has changed of what was written before, as JSON: in traces and in streams.
//!
//! The command line has this file too, since a page reads both.

use llada::sample::Edit;
use serde_json::{Value, json};

/// The edits of a step; `text` is the text of one token.
pub(crate) fn edits_json(edits: &[Edit], text: impl Fn(u32) -> String) -> Vec<Value> {
    let edit = |edit: &Edit| match *edit {
        Edit::Replaced {
            position,
            old,
            new,
            confidence,
        } => json!({
            "kind": "replaced", "position": position, "from": old, "from_text": text(old),
            "to": new, "to_text": text(new), "confidence": confidence,
        }),
        Edit::Deleted { position, old } => json!({
            "kind": "deleted", "position": position, "from": old, "from_text": text(old),
        }),
        Edit::Inserted { position } => json!({ "kind": "inserted", "position": position }),
    };
    edits.iter().map(edit).collect()
}
