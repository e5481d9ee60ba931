//! SwiGLU and its gradient.

use llada_tensor::backend::{SwigluArgs, SwigluBackwardArgs};
use llada_tensor::{DType, Device, Tensor, bf16};
use proptest::prelude::*;

use crate::reference;
use crate::support::{bf16_with_gaps, check_levels, devices, normal, of, same_bits, widen};

fn forward(device: &Device, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut y = Tensor::empty(device, DType::F32, &[gate.len()]).unwrap();
    let args = SwigluArgs {
        gate: &of(device, &[gate.len()], gate),
        up: &of(device, &[up.len()], up),
        y: &mut y,
    };
    device.backend().swiglu(args).expect("fits");
    y.to_vec_f32().unwrap()
}

fn backward(device: &Device, gate: &[f32], up: &[f32], dy: &[f32]) -> Vec<Vec<f32>> {
    let shape = [gate.len()];
    let mut dgate = Tensor::empty(device, DType::F32, &shape).unwrap();
    let mut dup = Tensor::empty(device, DType::F32, &shape).unwrap();
    let args = SwigluBackwardArgs {
        gate: &of(device, &shape, gate),
        up: &of(device, &shape, up),
        dy: &of(device, &shape, dy),
        dgate: &mut dgate,
        dup: &mut dup,
    };
    device.backend().swiglu_backward(args).expect("fits");
    vec![dgate.to_vec_f32().unwrap(), dup.to_vec_f32().unwrap()]
}

#[track_caller]
fn check(n: usize) {
    let [gate, up, dy] = [1, 2, 3].map(|seed| normal(seed, n));
    let gate: Vec<f32> = gate.iter().map(|x| 4.0 * x).collect();
    let [gate64, up64, dy64] = [&gate, &up, &dy].map(|x| widen(x));
    let y = reference::swiglu(&gate64, &up64);
    let slopes = reference::swiglu_backward(&gate64, &up64, &dy64);
    check_levels(&format!("swiglu {n}"), 4, &[y], |device| {
        vec![forward(device, &gate, &up)]
    });
    check_levels(&format!("swiglu {n} backward"), 8, &slopes, |device| {
        backward(device, &gate, &up, &dy)
    });
}

#[test]
fn agrees_with_f64() {
    for n in [0, 1, 15, 16, 17, 100, 40_001] {
        check(n);
    }
}

#[test]
fn far_ends_are_zero_and_the_identity() {
    let gate = [-1e30, -200.0, -95.0, 95.0, 200.0, 1e30];
    for (name, device) in devices() {
        let y = forward(device, &gate, &[1.0; 6]);
        for (y, expected) in y.iter().zip([0.0, 0.0, 0.0, 95.0, 200.0, 1e30_f32]) {
            assert!(
                (y - expected).abs() <= 1e-6 * expected + 1e-6,
                "{name}: {y}"
            );
        }
        // e^88 is the largest power that the vectors know: what is left of gate -1e30 is 1e-8.
        let slopes = backward(device, &gate[1..5], &[1.0; 4], &[1.0; 4]);
        for (slope, expected) in slopes[0].iter().zip([0.0, 0.0, 1.0, 1.0_f32]) {
            assert!((slope - expected).abs() < 1e-6, "{name}: {slope}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_lengths(n in 0usize..300) {
        check(n);
    }
}

/// In bf16, with and without gaps between rows: what `f32` gives of the same values, rounded.
#[test]
fn bf16_has_the_rounded_bits_of_f32() {
    let shape @ [rows, columns] = [37, 515];
    let rounded = |x: &[f32]| {
        x.iter()
            .map(|&x| bf16::from_f32(x).to_f32())
            .collect::<Vec<_>>()
    };
    for (name, device) in devices() {
        for gap in [0, 5] {
            let [gate, up, dy] = [1, 2, 3].map(|seed| bf16_with_gaps(device, shape, gap, seed));
            let [gate32, up32, dy32] = [&gate, &up, &dy].map(|x| x.to_vec_f32().unwrap());
            let y32 = rounded(&forward(device, &gate32, &up32));
            let slopes = backward(device, &gate32, &up32, &dy32);
            let [mut y, mut dgate, mut dup] =
                [4, 5, 6].map(|seed| bf16_with_gaps(device, shape, gap, seed));
            let (gate, up, dy) = (&gate, &up, &dy);
            let args = SwigluArgs {
                gate,
                up,
                y: &mut y,
            };
            device.backend().swiglu(args).expect("fits");
            same_bits(name, &y.to_vec_f32().unwrap(), &y32);
            let (dgate_out, dup_out) = (&mut dgate, &mut dup);
            let args = SwigluBackwardArgs {
                gate,
                up,
                dy,
                dgate: dgate_out,
                dup: dup_out,
            };
            device.backend().swiglu_backward(args).expect("fits");
            for (x, expected) in [dgate, dup].iter().zip(&slopes) {
                same_bits(name, &x.to_vec_f32().unwrap(), &rounded(expected));
            }
        }
        // From `f32` to bf16, and gaps that differ.
        let [gate, up] = [1, 2].map(|seed| normal(seed, rows * columns));
        let y32 = rounded(&forward(device, &gate, &up));
        let (gate, up) = (of(device, &shape, &gate), of(device, &shape, &up));
        let mut y = bf16_with_gaps(device, shape, 0, 4);
        let args = SwigluArgs {
            gate: &gate,
            up: &up,
            y: &mut y,
        };
        device.backend().swiglu(args).expect("fits");
        same_bits(name, &y.to_vec_f32().unwrap(), &y32);
        let [gate, up] = [0, 8].map(|gap| bf16_with_gaps(device, shape, gap, 1));
        let args = SwigluArgs {
            gate: &gate,
            up: &up,
            y: &mut y,
        };
        assert!(device.backend().swiglu(args).is_err(), "{name}");
    }
}
