//! Parsing, and which loop is the main one.

use super::{Function, parse};

fn function(body: &str) -> Function {
    let text = format!(
        "\t.target\tsm_80\n//--------------------- .text.k        ----------\n\t.align\t128\nk:\n\
         .text.k:\n{body}\n//--------------------- .nv.info ----------\n"
    );
    let mut functions = parse(&text);
    assert_eq!(functions.len(), 1);
    functions.remove("k").unwrap()
}

/// Numbers the instructions; lines that begin with a dot are labels.
fn listing(lines: &[&str]) -> Function {
    let mut body = String::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('.') {
            body.push_str(&format!("{line}\n"));
        } else {
            body.push_str(&format!(
                "        /*{:04x}*/                   {line} ;\n",
                16 * at
            ));
        }
    }
    function(&body)
}

#[test]
fn opcodes_predicates_and_padding_are_read() {
    let function = function(
        "        /*0000*/              @!P0 LDG.E.128 R4, [R2.64] ;\n\
         \x20       /*0010*/                   HMMA.16816.F32.BF16 R4, R4, R8, R4 ;\n\
         \x20       /*0020*/                   STL [R1], R2 ;\n\
         \x20       /*0030*/                   EXIT ;\n.L_x_0:\n\
         \x20       /*0040*/                   BRA `(.L_x_0);\n\
         \x20       /*0050*/                   NOP;",
    );
    let mix = function.mix();
    assert_eq!((mix.length, mix.tensor, mix.work, mix.local), (5, 1, 1, 1));
    assert_eq!(function.instructions[0].opcode, "LDG.E.128");
    // The branch to itself is behind the end.
    assert_eq!(function.main_loop(), None);
}

#[test]
fn the_loop_with_the_products_is_the_main_one() {
    let function = listing(&[
        "MOV R0, R1",
        ".L_x_1:",
        "LDG.E R2, [R2.64]",
        "LDG.E R3, [R2.64]",
        "@P1 BRA `(.L_x_1)",
        ".L_x_2:",
        "LDSM.16.M88.4 R4, [R2]",
        "HMMA.16816.F32 R4, R4, R8, R4",
        "HMMA.16816.F32 R4, R4, R8, R4",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "@!P0 BRA `(.L_x_2)",
        "STG.E [R2.64], R3",
        "EXIT",
    ]);
    let main = function.main_loop().unwrap();
    assert_eq!(
        (main.length, main.tensor, main.ldsm, main.bar),
        (5, 2, 1, 1)
    );
    assert!((main.tensor_ratio() - 0.4).abs() < 1e-12);
}

#[test]
fn of_nested_loops_the_inner_one_counts() {
    let function = listing(&[
        ".L_x_0:",
        "MOV R0, R1",
        ".L_x_1:",
        "HMMA.16816.F32 R4, R4, R8, R4",
        "BRA.U UP0, `(.L_x_1)",
        "STG.E [R2.64], R3",
        "@P1 BRA `(.L_x_0)",
        "EXIT",
    ]);
    assert_eq!(function.main_loop().unwrap().length, 2);
}

#[test]
fn a_block_behind_the_exit_belongs_to_its_loop() {
    let function = listing(&[
        "MOV R0, R1",
        ".L_x_0:",
        "LDG.E R2, [R2.64]",
        "@P2 BRA `(.L_x_9)",
        ".L_x_1:",
        "@P1 BRA `(.L_x_0)",
        "STG.E [R2.64], R3",
        "STG.E [R2.64], R3",
        "EXIT",
        ".L_x_9:",
        "MUFU.RCP R3, R3",
        "BRA `(.L_x_1)",
    ]);
    let main = function.main_loop().unwrap();
    assert_eq!((main.length, main.mufu, main.work), (5, 1, 1));
}

#[test]
fn a_call_of_a_label_leads_on() {
    let function = listing(&[
        ".L_x_0:",
        "MOV R0, R1",
        "@P2 CALL.REL.NOINC `(.L_x_1)",
        "BRA `(.L_x_0)",
        ".L_x_1:",
        ".L_x_2:",
        "HMMA.16816.F32 R4, R4, R8, R4",
        "@P1 BRA `(.L_x_2)",
        "CALL.REL.NOINC `($__internal_0_$__cuda_sm3x_div)",
        "EXIT",
    ]);
    assert_eq!(function.main_loop().unwrap().tensor, 1);
}

#[test]
fn a_branch_forward_is_no_loop() {
    let function = listing(&["@P0 BRA `(.L_x_0)", "MOV R0, R1", ".L_x_0:", "EXIT"]);
    assert_eq!(function.main_loop(), None);
}
