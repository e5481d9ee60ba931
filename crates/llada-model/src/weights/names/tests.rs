//! Tests of names.

use super::*;
use crate::Family;

#[track_caller]
fn check(names: &[&str], expected: &[&str]) {
    let published = published(Family::Llada.names(), names.iter().copied());
    let got: Vec<&str> = names.iter().map(|name| &*published[name]).collect();
    assert_eq!(got, expected);
}

#[test]
fn what_all_names_begin_with_is_taken_off() {
    let expected = [
        "model.transformer.ln_f.weight",
        "model.transformer.blocks.0.ff_out.weight",
    ];
    for prefix in [
        "model.transformer.",
        "module.model.transformer.",
        "_orig_mod.module.model.transformer.",
        "module._orig_mod.model.transformer.",
        "model._orig_mod.transformer.",
        "base_model.model.model.transformer.",
        "transformer.",
        "",
        "student.",
    ] {
        let names = ["ln_f.weight", "blocks.0.ff_out.weight"].map(|end| format!("{prefix}{end}"));
        check(&[&names[0], &names[1]], &expected);
    }
    check(
        &[
            "model.transformer.ln_f.weight",
            "model.transformer.blocks.0._orig_mod.ff_out.weight",
        ],
        &expected,
    );
}

#[test]
fn names_without_a_common_beginning_stay() {
    for names in [
        ["teacher.ln_f.weight", "student.ln_f.weight"],
        ["module.ln_f.weight", "head.weight"],
        ["model.transformer.ln_f.weight", "lm_head.weight"],
        ["module.xln_f.weight", "module.wte.weight"],
        ["ln_f.weight", "_orig_mod.ln_f.weight"],
    ] {
        check(&names, &names);
    }
}

#[test]
fn the_names_that_are_most_like_the_missing_one_are_shown() {
    let unknown = ["a.k_proj.weight", "b.q_proj.bias", "c.q_proj.weight", "d"];
    assert_eq!(
        hint("blocks.0.q_proj.weight", unknown.into_iter()),
        "; similar names are there: c.q_proj.weight, a.k_proj.weight, b.q_proj.bias"
    );
    assert_eq!(hint("x", std::iter::empty()), "");
    let wrapped = ["m.blocks.0.q_proj.base_layer.weight"];
    assert!(hint("blocks.0.q_proj.weight", wrapped.into_iter()).contains("merge_and_unload"));
}
