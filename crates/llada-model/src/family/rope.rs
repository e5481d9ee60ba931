//! The rotary frequencies, which transformers writes in several places.

use serde_json::Value;

use super::Fields;
use crate::{Error, Result};

/// Puts the base of the rotary frequencies into `rope_theta` from where it is: at the top, or in
/// `rope_parameters`, where transformers 5 writes it, or in `rope_scaling`.
///
/// `is_partial`: a `partial_rotary_factor` in there is what the one at the top says.
///
/// # Errors
/// [`Error::UnsupportedField`] if two places differ, if `rope_parameters` has no base, or if
/// frequencies are scaled: every type but `default`.
pub(super) fn take_base(fields: &mut Fields, is_partial: bool) -> Result<()> {
    const THETA: &str = "rope_theta";
    const PARTIAL: &str = "partial_rotary_factor";
    let unsupported = |field, value: &dyn std::fmt::Display, expected: &str| {
        Err(Error::unsupported(field, value, expected))
    };
    let mut found = fields.get(THETA).filter(|value| !value.is_null()).cloned();
    for field in ["rope_parameters", "rope_scaling"] {
        let value = match fields.get(field) {
            None | Some(Value::Null) => continue,
            Some(value) => value,
        };
        let Some(object) = value.as_object() else {
            return unsupported(field, value, "an object or null");
        };
        let is_set = |name: &&str| object.get(*name).is_some_and(|value| !value.is_null());
        let types = ["rope_type", "type"].into_iter().filter(is_set);
        let types: Vec<&Value> = types.map(|name| &object[name]).collect();
        let is_default = |kind: &&&Value| kind.as_str() == Some("default");
        if let Some(kind) = types.iter().find(|kind| !is_default(kind)) {
            let expected = "rope_type \"default\" (frequencies that are not scaled)";
            return unsupported(field, kind, expected);
        }
        // `partial_rotary_factor`, the factors of a scaling, parameters for each type of layer.
        let is_partial = |name: &str| {
            is_partial && name == PARTIAL && object.get(PARTIAL) == fields.get(PARTIAL)
        };
        let is_known =
            |name: &str| [THETA, "rope_type", "type"].contains(&name) || is_partial(name);
        let changes = |(name, value): &(&String, &Value)| {
            let is_one = value
                .as_f64()
                .is_some_and(|x| (x - 1.0).abs() < f64::EPSILON);
            !is_known(name) && !value.is_null() && !is_one
        };
        if let Some((name, value)) = object.iter().find(changes) {
            let value = format!("{name} = {value}");
            return unsupported(
                field,
                &value,
                "a base alone (frequencies that are not scaled)",
            );
        }
        let theta = object.get(THETA).filter(|value| !value.is_null());
        match (theta, &found) {
            (Some(inner), Some(outer)) if inner.as_f64() != outer.as_f64() => {
                let value = format!("{THETA} = {inner}");
                return unsupported(field, &value, &format!("{outer}, which another field says"));
            }
            (Some(inner), None) => found = Some(inner.clone()),
            (None, None) if field == "rope_parameters" => {
                return unsupported(field, value, "a rope_theta, in it or beside it");
            }
            _ => {}
        }
    }
    match fields.get("rope_type") {
        None | Some(Value::Null) => {}
        Some(kind) if kind.as_str() == Some("default") => {}
        Some(kind) => return unsupported("rope_type", kind, "\"default\""),
    }
    match found {
        Some(theta) => fields.insert(THETA.to_owned(), theta),
        None => fields.remove(THETA),
    };
    Ok(())
}
