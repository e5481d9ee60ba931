use llada_tensor::{CpuConfig, Device, Precision};

use super::*;
use crate::{FrozenModel, preset};

#[test]
fn the_most_exact_precision_that_fits_is_chosen() {
    let config = preset("llada-1b").expect("a preset");
    let numel = config.total_parameters();
    let check = |bits: f64, has_table: bool, expected: Precision| {
        let in_file = (numel as f64 * bits / 8.0) as usize;
        let chosen = precision_for(&config, Precision::Bf16, in_file, has_table);
        assert_eq!(chosen, expected, "{bits} bits");
    };
    check(16.0, true, Precision::Bf16);
    check(8.5, false, Precision::Int8);
    check(6.5625, false, Precision::Int8);
    // Q4_K_M of this shape, whose `ffn_down` stays f16.
    check(6.83, false, Precision::Int8);
    check(5.5, false, Precision::Int4);
    check(4.5, false, Precision::Int4);
    check(2.6, false, Precision::Int4);
}

#[test]
fn bytes_are_estimated_as_they_are_in_memory() {
    let device = Device::cpu(CpuConfig::default()).expect("a processor");
    for name in ["llada-25m", "tied"] {
        let mut config = preset("llada-25m").expect("a preset");
        (config.n_layers, config.vocab_size) = (1, 1024);
        config.weight_tying = name == "tied";
        for precision in [
            Precision::F32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ] {
            let model = FrozenModel::random(config.clone(), &device, precision, 1);
            let bytes = model.expect("a model").bytes() as f64;
            let estimate = config.frozen_bytes(precision, true) as f64;
            let ratio = bytes / estimate;
            assert!(
                (0.97..1.03).contains(&ratio),
                "{name} {precision:?}: {ratio}"
            );
        }
    }
}
