//! What ops say about operands that do not fit.

use llada_tensor::backend::{AdamWArgs, AttentionShape, CandidateArgs, MatmulArgs, Noise, Rhs};
use llada_tensor::ops::candidates::{CandidateRule, candidates};
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::ops::{
    adamw::adamw, add::add_into, cross_entropy::cross_entropy, matmul::matmul,
};
use llada_tensor::{
    CpuConfig, DType, Device, Error, Gradients, Precision, Result, Tape, Tensor, Var,
};

use crate::support::{levels, scalar, tensor};

/// An inference tape and random operands of the given shapes.
fn operands<const N: usize>(shapes: [&[usize]; N]) -> (Tape, [Var; N]) {
    let tape = Tape::inference(scalar(), Precision::F32);
    (
        tape,
        shapes.map(|shape| Var::constant(tensor(scalar(), shape, 1))),
    )
}

fn bf16(shape: &[usize]) -> Var {
    Var::constant(tensor(scalar(), shape, 1).to_dtype(DType::Bf16).unwrap())
}

fn transposed(shape: &[usize]) -> Var {
    let x = tensor(scalar(), shape, 1).transpose(0, 1);
    Var::constant(x.expect("two axes"))
}

/// One line per case: the name of the error's variant and how to get it.
#[track_caller]
fn check<T: std::fmt::Debug>(expected: &str, result: Result<T>) {
    let error = result.expect_err("must not fit");
    let variant = format!("{error:?}");
    assert!(variant.starts_with(expected), "{expected}: {variant}");
    let message = error.to_string();
    assert!(message.starts_with(char::is_lowercase), "{message}");
    assert!(!message.ends_with('.'), "{message}");
}

#[test]
fn embedding() {
    let (mut tape, [table, vector]) = operands([&[4, 3], &[4]]);
    check("Rank", tape.embedding(&vector, &[0]));
    check("IndexOutOfRange", tape.embedding(&table, &[3, 4]));
    check("NotContiguous", tape.embedding(&transposed(&[4, 3]), &[0]));
}

#[test]
fn add() {
    let (mut tape, [x, y, row]) = operands([&[4, 3], &[3, 4], &[4]]);
    check("ShapeMismatch", tape.add(&x, &y));
    check("ShapeMismatch", tape.add(&x, &row));
    check("ShapeMismatch", tape.add(&row, &x));
    check("DTypeMismatch", tape.add(&x, &bf16(&[4, 3])));
    check("NotContiguous", tape.add(&y, &transposed(&[4, 3])));
    let mut sum = tensor(scalar(), &[4, 3], 1);
    check("ShapeMismatch", add_into(&mut sum, y.value()));
    let alias = sum.clone();
    check("SharedOutput", add_into(&mut sum, &alias));
}

#[test]
fn rms_norm() {
    let (mut tape, [x, w, short]) = operands([&[4, 3], &[3], &[2]]);
    check("Rank", tape.rms_norm(&w, &w, 0.0));
    check("ShapeMismatch", tape.rms_norm(&x, &short, 0.0));
    check("ShapeMismatch", tape.rms_norm(&x, &x, 0.0));
    check("DTypeMismatch", tape.rms_norm(&bf16(&[4, 3]), &w, 0.0));
    check("DTypeMismatch", tape.rms_norm(&x, &bf16(&[3]), 0.0));
    check(
        "NotContiguous",
        tape.rms_norm(&transposed(&[3, 4]), &w, 0.0),
    );
}

#[test]
fn rope() {
    let (mut tape, [x, vector]) = operands([&[2, 8], &[8]]);
    let table = |head_dim| RopeTable::new(scalar(), 5, head_dim, 100.0);
    check("InvalidArgument", table(3));
    check("InvalidArgument", table(0));
    let (four, six) = (table(4).expect("even"), table(6).expect("even"));
    check("ShapeMismatch", tape.rope(&x, &four, &[0]));
    check("ShapeMismatch", tape.rope(&x, &six, &[0, 1]));
    check("ShapeMismatch", tape.rope(&vector, &four, &[0]));
    check("IndexOutOfRange", tape.rope(&x, &four, &[0, 5]));
    check("DTypeMismatch", tape.rope(&bf16(&[2, 8]), &four, &[0, 1]));
    check(
        "NotContiguous",
        tape.rope(&transposed(&[8, 2]), &four, &[0, 1]),
    );
}

#[test]
fn attention() {
    let (mut tape, [q, kv, other, vector]) = operands([&[3, 8], &[3, 4], &[2, 4], &[8]]);
    let good = AttentionShape {
        offsets: &[0, 3],
        key_offsets: None,
        n_heads: 2,
        n_kv_heads: 1,
        block_size: None,
    };
    tape.attention(&q, &kv, &kv, good).expect("fits");
    let (_, [empty]) = operands([&[3, 0]]);
    check(
        "InvalidArgument",
        tape.attention(&empty, &empty, &empty, good),
    );
    for (expected, q, k, v) in [
        ("ShapeMismatch", &vector, &kv, &kv),
        ("ShapeMismatch", &q, &q, &kv),
        ("ShapeMismatch", &q, &kv, &q),
        ("ShapeMismatch", &q, &other, &kv),
        ("DTypeMismatch", &bf16(&[3, 8]), &kv, &kv),
        ("DTypeMismatch", &q, &kv, &bf16(&[3, 4])),
        ("NotContiguous", &q, &transposed(&[4, 3]), &kv),
    ] {
        check(expected, tape.attention(q, k, v, good));
    }
    for (expected, shape) in [
        ("InvalidArgument", AttentionShape { n_heads: 0, ..good }),
        (
            "InvalidArgument",
            AttentionShape {
                n_kv_heads: 0,
                ..good
            },
        ),
        (
            "InvalidArgument",
            AttentionShape {
                n_kv_heads: 3,
                ..good
            },
        ),
        ("ShapeMismatch", AttentionShape { n_heads: 3, ..good }),
        (
            "InvalidArgument",
            AttentionShape {
                offsets: &[],
                key_offsets: None,
                ..good
            },
        ),
        (
            "InvalidArgument",
            AttentionShape {
                offsets: &[0, 2],
                key_offsets: None,
                ..good
            },
        ),
        (
            "InvalidArgument",
            AttentionShape {
                offsets: &[1, 3],
                key_offsets: None,
                ..good
            },
        ),
        (
            "InvalidArgument",
            AttentionShape {
                offsets: &[0, 2, 1, 3],
                key_offsets: None,
                ..good
            },
        ),
        (
            "InvalidArgument",
            AttentionShape {
                key_offsets: Some(&[0, 3]),
                block_size: Some(std::num::NonZeroUsize::MIN),
                ..good
            },
        ),
    ] {
        check(expected, tape.attention(&q, &kv, &kv, shape));
    }
}

#[test]
fn swiglu() {
    let (mut tape, [gate, up]) = operands([&[4, 3], &[3, 4]]);
    check("ShapeMismatch", tape.swiglu(&gate, &up));
    check("DTypeMismatch", tape.swiglu(&gate, &bf16(&[4, 3])));
    check("NotContiguous", tape.swiglu(&up, &transposed(&[4, 3])));
}

#[test]
fn products() {
    let (mut tape, [x, w, long, row]) = operands([&[4, 3], &[5, 3], &[5, 4], &[4]]);
    check("ShapeMismatch", tape.linear(&x, &long, None));
    check("ShapeMismatch", tape.linear(&x, &w, Some(&row)));
    check("Rank", tape.linear(&row, &w, None));
    check("Rank", tape.linear(&x, &row, None));
    check("DTypeMismatch", tape.linear(&bf16(&[4, 3]), &w, None));
    check("DTypeMismatch", tape.linear(&x, &bf16(&[5, 3]), None));
    let mut c = Tensor::zeros(scalar(), DType::F32, &[4, 4]).unwrap();
    let (a, precision) = (x.value(), Precision::F32);
    let b = Rhs::Weight(w.value());
    let args = MatmulArgs {
        a,
        b,
        c: &mut c,
        accumulate: false,
        precision,
    };
    check("ShapeMismatch", matmul(args));
    let batch = tensor(scalar(), &[2, 3, 4], 1);
    let b = Rhs::Matrix(&batch);
    let args = MatmulArgs {
        a,
        b,
        c: &mut c,
        accumulate: false,
        precision,
    };
    check("ShapeMismatch", matmul(args));
}

#[test]
fn losses() {
    let (mut tape, [hidden, head, bias, short]) = operands([&[2, 3], &[5, 3], &[5], &[4]]);
    let mut run = |hidden: &Var, head: &Var, bias: Option<&Var>, ids: &[u32], weights: &[f32]| {
        tape.cross_entropy(hidden, head, bias, ids, weights)
    };
    let weights = &[1.0, 1.0];
    run(&hidden, &head, Some(&bias), &[0, 4], weights).expect("fits");
    check("ShapeMismatch", run(&hidden, &head, None, &[0, 4], &[1.0]));
    check("ShapeMismatch", run(&hidden, &head, None, &[0], &[1.0]));
    check(
        "ShapeMismatch",
        run(&hidden, &hidden, Some(&bias), &[0, 1], weights),
    );
    check("ShapeMismatch", run(&hidden, &bias, None, &[0, 4], weights));
    check("ShapeMismatch", run(&head, &head, None, &[0, 4], weights));
    check(
        "ShapeMismatch",
        run(&hidden, &head, Some(&short), &[0, 4], weights),
    );
    check(
        "IndexOutOfRange",
        run(&hidden, &head, None, &[0, 5], weights),
    );
    check(
        "DTypeMismatch",
        run(&bf16(&[2, 3]), &head, None, &[0, 4], weights),
    );
    check(
        "DTypeMismatch",
        run(&hidden, &head, Some(&bf16(&[5])), &[0, 4], weights),
    );
    check(
        "DTypeMismatch",
        run(&hidden, &bf16(&[5, 3]), None, &[0, 4], weights),
    );
    let (hidden, head) = (hidden.value(), Rhs::Weight(head.value()));
    check(
        "IndexOutOfRange",
        cross_entropy(hidden, head, None, &[9, 0], Precision::F32),
    );
}

#[test]
fn choices() {
    let [hidden, other, head, bias] =
        [&[2, 3][..], &[3, 3], &[5, 3], &[4]].map(|shape| tensor(scalar(), shape, 1));
    let half = hidden.to_dtype(DType::Bf16).unwrap();
    let rule = CandidateRule::default();
    let good = CandidateArgs {
        hidden: &hidden,
        unconditional: None,
        head: Rhs::Weight(&head),
        bias: None,
        rule: &rule,
        noise: &Noise::None,
        precision: Precision::F32,
    };
    candidates(good).expect("fits");
    let keys = Noise::Philox {
        seeds: &[1, 2],
        keys: &[[0; 3]],
    };
    for (expected, args) in [
        (
            "ShapeMismatch",
            CandidateArgs {
                hidden: &bias,
                ..good
            },
        ),
        (
            "ShapeMismatch",
            CandidateArgs {
                unconditional: Some(&other),
                ..good
            },
        ),
        (
            "ShapeMismatch",
            CandidateArgs {
                head: Rhs::Weight(&bias),
                ..good
            },
        ),
        (
            "ShapeMismatch",
            CandidateArgs {
                bias: Some(&bias),
                ..good
            },
        ),
        (
            "ShapeMismatch",
            CandidateArgs {
                noise: &keys,
                ..good
            },
        ),
        (
            "ShapeMismatch",
            CandidateArgs {
                noise: &Noise::Recorded(&[0.5; 9]),
                ..good
            },
        ),
        (
            "DTypeMismatch",
            CandidateArgs {
                hidden: &half,
                ..good
            },
        ),
        (
            "DTypeMismatch",
            CandidateArgs {
                head: Rhs::Weight(&half),
                ..good
            },
        ),
    ] {
        check(expected, candidates(args));
    }
}

/// Step and position share a word of the counter.
#[test]
fn noise_that_would_repeat() {
    let [hidden, head] = [&[1, 3][..], &[5, 3]].map(|shape| tensor(scalar(), shape, 1));
    let rule = CandidateRule {
        temperature: 1.0,
        ..CandidateRule::default()
    };
    let draw = |position, step| {
        let noise = &Noise::Philox {
            seeds: &[1],
            keys: &[[u32::MAX, position, step]],
        };
        candidates(CandidateArgs {
            hidden: &hidden,
            unconditional: None,
            head: Rhs::Weight(&head),
            bias: None,
            rule: &rule,
            noise,
            precision: Precision::F32,
        })
    };
    draw((1 << 20) - 1, 4095).expect("the last that fits");
    check("InvalidArgument", draw(0, 4096));
    check("InvalidArgument", draw(1 << 20, 0));
}

#[test]
fn updates() {
    let update = |shapes: [&[usize]; 4], step, dtype| {
        let [mut p, g, mut m, mut v] = shapes.map(|shape| tensor(scalar(), shape, 1));
        let args = AdamWArgs {
            parameter: &mut p,
            gradient: &g.to_dtype(dtype).unwrap(),
            first_moment: &mut m,
            second_moment: &mut v,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step,
        };
        adamw(args)
    };
    check("InvalidArgument", update([&[3]; 4], 0, DType::F32));
    check(
        "ShapeMismatch",
        update([&[3], &[2], &[3], &[3]], 1, DType::F32),
    );
    check(
        "ShapeMismatch",
        update([&[3], &[3], &[2], &[3]], 1, DType::F32),
    );
    check(
        "ShapeMismatch",
        update([&[3], &[3], &[3], &[2]], 1, DType::F32),
    );
    check("DTypeMismatch", update([&[3]; 4], 1, DType::Bf16));
}

#[test]
fn the_tape() {
    let device = scalar();
    let x = tensor(device, &[2, 2], 1);
    let mut gradients = Gradients::zeros_like([&x]).unwrap();
    let mut tape = Tape::recording(device, Precision::F32);
    let var = tape.parameter(0, &x);
    check("InvalidArgument", tape.backward(&var, &mut gradients));
    let constant = Var::constant(tensor(device, &[1], 1));
    check("InvalidArgument", tape.backward(&constant, &mut gradients));
    let alias = gradients.tensors()[0].clone();
    check("SharedOutput", gradients.zero());
    drop(alias);
    gradients.zero().expect("not shared");
}

#[test]
fn levels_that_the_machine_lacks() {
    // Before the loop: what is available must not change inside of it.
    let available = levels();
    for level in llada_tensor::CpuLevel::ALL {
        let config = CpuConfig {
            threads: 1,
            level: Some(level),
        };
        match Device::cpu(config) {
            Ok(_) => assert!(available.contains(&level)),
            Err(error) => assert!(matches!(error, Error::LevelUnavailable { .. }), "{error}"),
        }
    }
}
