//! Tests of random parameters.

use super::*;
use crate::preset;

#[test]
fn uniform_parameters_have_the_standard_deviations_of_normal_ones() {
    let config = ModelConfig {
        n_layers: 2,
        ..preset("llada-25m").expect("a preset")
    };
    for (stored, (name, shape)) in uniform_parameters(&config, 3)
        .iter()
        .zip(config.parameter_shapes())
    {
        let mut values = vec![f32::NAN; shape.iter().product()];
        (stored.fill)(0..shape[0], &mut values);
        let Some(std) = standard_deviation(&config, &name, &shape) else {
            assert!(values.iter().all(|&x| x.to_bits() == 1.0_f32.to_bits()));
            continue;
        };
        let n = values.len() as f64;
        let moment = |power| {
            values
                .iter()
                .map(|&x| f64::from(x).powi(power))
                .sum::<f64>()
                / n
        };
        // Five standard errors of the mean and of the mean square of n uniform draws.
        assert!(moment(1).abs() < 5.0 * std / n.sqrt(), "{name}");
        let relative = moment(2) / (std * std) - 1.0;
        assert!(relative.abs() < 5.0 * (0.8 / n).sqrt(), "{name}");
        // Rows do not depend on what else is asked for.
        let mut row = vec![0.0; shape[1]];
        (stored.fill)(5..6, &mut row);
        assert_eq!(row, values[5 * shape[1]..6 * shape[1]], "{name}");
    }
}
