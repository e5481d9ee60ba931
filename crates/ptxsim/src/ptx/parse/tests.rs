use super::parse;
use crate::ptx::{Arg, Init, StmtKind};

const HEAD: &str = ".version 9.0\n.target sm_80\n.address_size 64\n";

fn body(text: &str) -> Vec<StmtKind> {
    let module = parse(&format!(
        "{HEAD}.visible .entry f(.param .u64 p)\n{{\n{text}\n}}\n"
    ))
    .unwrap();
    let func = module.funcs.into_iter().next().unwrap();
    func.body
        .unwrap()
        .into_iter()
        .map(|stmt| stmt.kind)
        .collect()
}

#[test]
fn operands_of_every_shape() {
    let stmts = body(
        "@!%p1 ld.global.v2.f32 {%f1, _}, [%rd1+-8]; shfl.sync.idx.b32 %r1|%p1, %r2, 0f3F800000, -3, 0xFFU;",
    );
    let StmtKind::Inst(load) = &stmts[0] else {
        panic!("{stmts:?}")
    };
    assert_eq!(load.guard, Some(("%p1".to_owned(), true)));
    assert_eq!(load.op, "ld.global.v2.f32");
    assert_eq!(
        load.args[1],
        Arg::Mem {
            base: Box::new(Arg::Name("%rd1".to_owned())),
            offset: -8
        }
    );
    let StmtKind::Inst(shuffle) = &stmts[1] else {
        panic!("{stmts:?}")
    };
    assert!(matches!(shuffle.args[0], Arg::Pair(..)));
    assert_eq!(
        shuffle.args[2..],
        [Arg::F32(0x3f80_0000), Arg::Int(-3), Arg::Int(255)]
    );
}

#[test]
fn declarations_of_registers_and_places() {
    let stmts = body(
        ".reg .b32 %r<5>; {.reg.pred p, q; $L: .loc 1 7 3, function_name $s, inlined_at 1 9 2\nret; }",
    );
    assert!(matches!(&stmts[0], StmtKind::Reg { name, count: 5, .. } if name == "%r"));
    assert!(matches!(&stmts[2], StmtKind::Reg { ty, count: 0, .. } if ty == ".pred"));
    assert!(matches!(&stmts[4], StmtKind::Label(name) if name == "$L"));
    assert!(matches!(&stmts[5], StmtKind::Loc { file: 1, line: 7 }));
}

#[test]
fn variables_have_sizes_and_values() {
    let text = format!(
        "{HEAD}.const .align 4 .b8 a[4] = {{1, 2}};\n.global .u64 b[2] = {{generic(a)+2, 0}};\n"
    );
    let module = parse(&text).unwrap();
    assert_eq!((module.vars[0].bytes, module.vars[0].align), (4, 4));
    assert_eq!(module.vars[1].bytes, 16);
    assert_eq!(module.vars[1].init[0], Init::Address("a".to_owned(), 2));
}

#[test]
fn errors_name_their_line() {
    let error = parse(&format!("{HEAD}.nonsense 3;\n")).unwrap_err();
    assert_eq!(error.line, 4);
    assert_eq!(error.text, ".nonsense 3;");
    assert_eq!(
        parse(&format!("{HEAD}.entry f() {{ mov.u32 %r1"))
            .unwrap_err()
            .reason,
        "the text ends early"
    );
}
