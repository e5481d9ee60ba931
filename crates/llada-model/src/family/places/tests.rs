//! Tests of names.

use super::*;
use crate::family::tests::{DREAM, LLADA_MOE, LLADA2, config};

/// Every parameter lies somewhere, and every tensor of the files is made of whole parameters.
#[test]
fn tensors_of_the_files_are_the_parameters_in_other_pieces() {
    for fields in [DREAM, LLADA2, LLADA_MOE] {
        let config = config(fields).expect("valid");
        let shapes = config.parameter_shapes();
        let mut rows = vec![0; shapes.len()];
        let mut names = std::collections::BTreeSet::new();
        for file in file_tensors(&config) {
            let of_file: usize = file.parts.iter().map(|(_, rows)| rows.len()).sum();
            assert_eq!(of_file, n_rows(&file.shape), "{}", file.name);
            for (at, part) in &file.parts {
                assert_eq!(rows[*at], part.start, "{}", file.name);
                rows[*at] = part.end;
            }
            assert!(names.insert(file.name.clone()), "{} twice", file.name);
        }
        for ((name, shape), rows) in shapes.iter().zip(rows) {
            assert_eq!(rows, n_rows(shape), "{name}");
            for file in place(&config, name, shape).names() {
                assert!(names.contains(file), "{name}: {file}");
            }
        }
    }
}

#[test]
fn fused_and_stacked_parameters_are_found() {
    let config = config(LLADA2).expect("valid");
    let shapes = config.parameter_shapes();
    let of = |end: &str| {
        let found = shapes.iter().find(|(name, _)| name.ends_with(end));
        let (name, shape) = found.expect("a parameter");
        place(&config, name, shape)
    };
    let name = "model.layers.1.attention.query_key_value.weight".to_owned();
    assert_eq!(
        of("blocks.1.k_proj.weight"),
        Place::Rows {
            name,
            rows: 16..24,
            of: 32
        }
    );
    let experts = |expert| format!("model.layers.1.mlp.experts.{expert}.down_proj.weight");
    assert_eq!(
        of("blocks.1.experts.ff_out.weight"),
        Place::Stack((0..4).map(experts).collect())
    );
    let bias = "model.layers.1.mlp.gate.expert_bias".to_owned();
    assert_eq!(of("blocks.1.router.bias"), Place::Whole(bias));
    let head = "lm_head.weight".to_owned();
    assert_eq!(of("transformer.ff_out.weight"), Place::Whole(head));
}
