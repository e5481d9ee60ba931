use super::share;
use crate::isa::{Cmp, Inst, Int2, Kernel, NONE, Op, Ty};

fn kernel(ops: Vec<Op>, n32: usize) -> Kernel {
    let inst = |op| Inst {
        op,
        guard: NONE,
        negated: false,
        line: 0,
        loc: (0, 0),
    };
    Kernel {
        code: ops.into_iter().map(inst).collect(),
        n32,
        n_pred: 1,
        const32: vec![(0, 1)],
        ..Kernel::default()
    }
}

fn add(d: u32, a: u32, b: u32) -> Op {
    Op::Int2 {
        f: Int2::Add,
        d,
        a,
        b,
    }
}

#[test]
fn a_chain_of_values_shares_a_register() {
    let mut chain: Vec<Op> = (1..100).map(|i| add(i + 1, i, 0)).collect();
    chain.push(Op::Exit);
    let mut kernel = kernel(chain, 101);
    share(&mut kernel);
    // The constant has one for itself.
    assert_eq!(kernel.n32, 2);
}

#[test]
fn a_value_that_a_loop_carries_keeps_its_register() {
    // 1 = 1 + 0; L: 2 = 1 + 0; 3 = 2 + 0; if p goto L; 4 = 1 + 3.
    let p = Op::Setp {
        cmp: Cmp::Eq,
        ty: Ty::U32,
        p: 0,
        q: NONE,
        a: 3,
        b: 0,
        with: None,
    };
    let mut kernel = kernel(
        vec![
            add(1, 0, 0),
            add(2, 1, 0),
            add(3, 2, 0),
            p,
            Op::Bra { target: 1 },
            add(4, 1, 3),
            Op::Exit,
        ],
        5,
    );
    kernel.code[4].guard = 0;
    share(&mut kernel);
    let written = |i: usize| match kernel.code[i].op {
        Op::Int2 { d, .. } => d,
        _ => NONE,
    };
    assert_ne!(written(0), written(1));
    assert_ne!(written(0), written(2));
}

#[test]
fn a_write_under_a_predicate_keeps_the_old_value() {
    // 1 = 0; 2 = 0 + 0; @p 1 = 2 + 0; 3 = 1 + 2: 1 is needed all the way.
    let mut kernel = kernel(
        vec![
            add(1, 0, 0),
            add(2, 0, 0),
            add(1, 2, 0),
            add(3, 1, 2),
            Op::Exit,
        ],
        4,
    );
    kernel.code[2].guard = 0;
    share(&mut kernel);
    let Op::Int2 { d: first, .. } = kernel.code[0].op else {
        panic!()
    };
    let Op::Int2 { d: second, .. } = kernel.code[1].op else {
        panic!()
    };
    assert_ne!(first, second);
}
