//! Tensors of bf16 between ops, as training in bf16 keeps them.

use llada_tensor::backend::{
    AttentionArgs, AttentionBackwardArgs, AttentionShape, MatmulArgs, Rhs, RopeArgs, SwigluArgs,
    SwigluBackwardArgs,
};
use llada_tensor::ops::matmul::{matmul, operand};
use llada_tensor::ops::rope::RopeTable;
use llada_tensor::{DType, Device, Error, Precision, Tensor, bf16};

use crate::bounds::{output, rounded, same_bits};
use crate::support::{assert_close, cuda, values};

const BF16: Precision = Precision::Bf16;

/// A tensor of these values in `f32`, and one in bf16; both have the same values.
fn pair(device: &Device, shape: &[usize], key: u32) -> [Tensor; 2] {
    let values = rounded(&values(key, shape.iter().product()));
    let narrow: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    [
        Tensor::from_f32(device, shape, &values).unwrap(),
        Tensor::from_bf16(device, shape, &narrow).unwrap(),
    ]
}

fn multiply(a: &Tensor, b: &Tensor, dtype: DType) -> Vec<f32> {
    let shape = [a.shape()[0], b.shape()[1]];
    let mut c = output(a.device(), dtype, &shape);
    matmul(MatmulArgs {
        a,
        b: Rhs::Matrix(b),
        c: &mut c,
        accumulate: false,
        precision: BF16,
    })
    .unwrap();
    c.to_vec_f32().unwrap()
}

/// Rows that are filled up and rows that are not, in rows and in columns.
#[test]
fn products_take_operands_in_every_layout() {
    let Some(device) = cuda() else { return };
    for [m, n, k] in [
        [16, 24, 8],
        [5, 13, 21],
        [1, 9, 64],
        [70, 1, 3],
        [40, 130, 1],
    ] {
        let [a, a_narrow] = pair(&device, &[m, k], 1);
        let [b, b_narrow] = pair(&device, &[k, n], 2);
        let [a_turned, b_turned] = [[k, m, 1], [n, k, 2]].map(|[rows, columns, key]| {
            let [wide, _] = pair(&device, &[rows, columns], u32::try_from(key).unwrap() + 2);
            operand(&wide, BF16).unwrap()
        });
        let expected = multiply(&a, &b, DType::F32);
        let near = |what: &str, got: &[f32], expected: &[f32], relative| {
            let what = format!("{m}x{n}x{k} {what}");
            assert_close(&what, got, expected, 1e-6 * k as f32, relative);
        };
        let filled = [operand(&a, BF16).unwrap(), operand(&b, BF16).unwrap()];
        assert_eq!(filled[0].shape(), [m, k]);
        for (at, (a, b)) in [
            (&a_narrow, &b_narrow),
            (&filled[0], &filled[1]),
            (&a, &filled[1]),
        ]
        .into_iter()
        .enumerate()
        {
            near(
                &format!("f32, {at}"),
                &multiply(a, b, DType::F32),
                &expected,
                0.0,
            );
            let narrow = multiply(a, b, DType::Bf16);
            near(&format!("bf16, {at}"), &narrow, &expected, 0.004);
            assert!(narrow == rounded(&narrow), "{at}");
        }
        // Products of transposes, of operands whose rows are filled up.
        let [a_again, b_again] = [&a_turned, &b_turned].map(|x| x.transpose(0, 1).unwrap());
        let wide = |x: &Tensor| {
            let values = x.to_vec_f32().unwrap();
            Tensor::from_f32(&device, x.shape(), &values).unwrap()
        };
        let expected = multiply(&wide(&a_again), &wide(&b_again), DType::F32);
        near(
            "turned",
            &multiply(&a_again, &b_again, DType::F32),
            &expected,
            0.0,
        );
        near(
            "half turned",
            &multiply(&wide(&a_again), &b_again, DType::F32),
            &expected,
            0.0,
        );
    }
}

#[test]
fn operands_are_rounded_once_and_products_alone_are_of_bf16() {
    let Some(device) = cuda() else { return };
    let x = Tensor::from_f32(&device, &[3, 13], &values(1, 39)).unwrap();
    let once = operand(&x, BF16).unwrap();
    let expected = rounded(&x.to_vec_f32().unwrap());
    same_bits("rounded", &once.to_vec_f32().unwrap(), &expected);
    assert_eq!(
        (once.strides(), operand(&once, BF16).unwrap().strides()),
        (&[16, 1][..], &[16, 1][..])
    );
    assert_eq!(operand(&x, Precision::F32).unwrap().dtype(), DType::F32);
    let mut c = output(&device, DType::F32, &[3, 3]);
    let args = MatmulArgs {
        a: &once,
        b: Rhs::Matrix(&once.transpose(0, 1).unwrap()),
        c: &mut c,
        accumulate: false,
        precision: Precision::F32,
    };
    assert!(matches!(matmul(args), Err(Error::DTypeMismatch { .. })));
    let mut c = output(&device, DType::Bf16, &[3, 3]);
    let args = MatmulArgs {
        a: &once,
        b: Rhs::Matrix(&once.transpose(0, 1).unwrap()),
        c: &mut c,
        accumulate: true,
        precision: BF16,
    };
    assert!(matches!(matmul(args), Err(Error::DTypeMismatch { .. })));
}

/// `y`, `dgate` and `dup` in the tensors that are given.
fn swiglu([gate, up, dy]: [&Tensor; 3], outputs: [Tensor; 3]) -> [Vec<f32>; 3] {
    let [mut y, mut dgate, mut dup] = outputs;
    let backend = gate.device().backend();
    let args = SwigluArgs {
        gate,
        up,
        y: &mut y,
    };
    backend.swiglu(args).unwrap();
    let args = SwigluBackwardArgs {
        gate,
        up,
        dy,
        dgate: &mut dgate,
        dup: &mut dup,
    };
    backend.swiglu_backward(args).unwrap();
    [y, dgate, dup].map(|x| x.to_vec_f32().unwrap())
}

#[test]
fn swiglu_and_its_gradient_are_those_of_f32_rounded() {
    let Some(device) = cuda() else { return };
    for n in [0, 1, 9, 1030] {
        let inputs = [1, 2, 3].map(|key| pair(&device, &[n], key));
        let run = |form: usize| {
            let inputs = inputs.each_ref().map(|pair| &pair[form]);
            swiglu(
                inputs,
                [(); 3].map(|()| output(&device, inputs[0].dtype(), &[n])),
            )
        };
        let (expected, got) = (run(0), run(1));
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            same_bits(&format!("{n}, {at}"), got, &rounded(expected));
        }
    }
}

/// What fills rows up is neither read nor written.
#[test]
fn swiglu_takes_rows_that_are_filled_up() {
    let Some(device) = cuda() else { return };
    for (rows, columns) in [(3, 13), (1, 5), (70, 41)] {
        let inputs = [1, 2, 3].map(|key| pair(&device, &[rows, columns], key));
        let run = |is_filled_up: bool| {
            let inputs = inputs.each_ref().map(|[wide, narrow]| match is_filled_up {
                true => operand(wide, BF16).unwrap(),
                false => narrow.clone(),
            });
            let outputs = [(); 3].map(|()| {
                let whole = output(&device, DType::Bf16, &[rows, inputs[0].strides()[0]]);
                whole.narrow(1, 0, columns).unwrap()
            });
            swiglu(inputs.each_ref(), outputs)
        };
        let (expected, got) = (run(false), run(true));
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            same_bits(&format!("{rows}x{columns}, {at}"), got, expected);
        }
    }
}

#[test]
fn rotations_are_those_of_f32_rounded() {
    let Some(device) = cuda() else { return };
    for (heads, half) in [(3, 16), (2, 5)] {
        let x = values(1, 4 * heads * 2 * half);
        let x = Tensor::from_f32(&device, &[4, heads * 2 * half], &x).unwrap();
        let table = RopeTable::new(&device, 9, 2 * half, 10_000.0).unwrap();
        let [expected, got] = [DType::F32, DType::Bf16].map(|dtype| {
            let mut y = output(&device, dtype, x.shape());
            let args = RopeArgs {
                x: &x,
                table: &table,
                positions: &[8, 0, 3, 5],
                inverse: heads == 2,
                y: &mut y,
            };
            device.backend().rope(args).unwrap();
            y.to_vec_f32().unwrap()
        });
        same_bits("rotated", &got, &rounded(&expected));
    }
}

/// Of the same values: all but the gradient's sums of `y * dy`, where `y` is rounded, is computed as
/// with tensors of `f32`.
#[test]
fn attention_is_that_of_f32_rounded() {
    let Some(device) = cuda() else { return };
    for (head_dim, queries) in [(64, 70), (128, 33), (64, 200)] {
        let (n_heads, n_kv_heads, offsets) = (4, 2, [0, queries / 3, queries]);
        let (q_shape, k_shape) = (
            [queries, n_heads * head_dim],
            [queries, n_kv_heads * head_dim],
        );
        let inputs = [(q_shape, 1), (k_shape, 2), (k_shape, 3)];
        let inputs = inputs.map(|(shape, key)| pair(&device, &shape, key));
        let dy = values(4, q_shape.iter().product());
        let dy = Tensor::from_f32(&device, &q_shape, &dy).unwrap();
        let shape = AttentionShape {
            offsets: &offsets,
            key_offsets: None,
            n_heads,
            n_kv_heads,
            block_size: None,
        };
        let [expected, got] = [0, 1].map(|form: usize| {
            let [q, k, v] = [0, 1, 2].map(|i: usize| &inputs[i][form]);
            let mut y = output(&device, q.dtype(), &q_shape);
            let mut lse = output(&device, DType::F32, &[queries, n_heads]);
            let args = AttentionArgs {
                q,
                k,
                v,
                shape,
                precision: BF16,
                y: &mut y,
                lse: &mut lse,
            };
            device.backend().attention(args).unwrap();
            let [mut dq, mut dk, mut dv] =
                [q_shape, k_shape, k_shape].map(|shape| output(&device, DType::F32, &shape));
            let args = AttentionBackwardArgs {
                q,
                k,
                v,
                shape,
                precision: BF16,
                y: &y,
                lse: &lse,
                dy: &dy,
                dq: &mut dq,
                dk: &mut dk,
                dv: &mut dv,
            };
            device.backend().attention_backward(args).unwrap();
            [y, lse, dv, dq, dk].map(|x| x.to_vec_f32().unwrap())
        });
        same_bits("y", &got[0], &rounded(&expected[0]));
        same_bits("lse", &got[1], &expected[1]);
        same_bits("dv", &got[2], &expected[2]);
        assert_close("dq", &got[3], &expected[3], 4e-3, 4e-3);
        assert_close("dk", &got[4], &expected[4], 4e-3, 4e-3);
    }
}

#[test]
fn attention_says_what_it_has_no_kernel_for() {
    let Some(device) = cuda() else { return };
    let [[wide, narrow], [_, other]] = [1, 2].map(|key| pair(&device, &[4, 32], key));
    let run = |q: &Tensor, k: &Tensor| {
        let mut y = output(&device, q.dtype(), &[4, 32]);
        let mut lse = output(&device, DType::F32, &[4, 1]);
        device.backend().attention(AttentionArgs {
            q,
            k,
            v: k,
            shape: AttentionShape {
                offsets: &[0, 4],
                key_offsets: None,
                n_heads: 1,
                n_kv_heads: 1,
                block_size: None,
            },
            precision: BF16,
            y: &mut y,
            lse: &mut lse,
        })
    };
    let error = run(&narrow, &other).unwrap_err().to_string();
    assert!(error.contains("64 and 128"), "{error}");
    assert!(matches!(
        run(&wide, &other),
        Err(Error::DTypeMismatch { .. })
    ));
}
