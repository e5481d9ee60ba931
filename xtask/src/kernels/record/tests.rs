//! What counts as worse.

use super::{Row, check, csv, parse_csv};

fn row() -> Row {
    Row {
        entry: "llada_attention_fwd_bf16".to_owned(),
        arch: "sm_80".to_owned(),
        threads: 128,
        registers: 200,
        static_shared: 49_152,
        blocks_per_sm: 2,
        limit: "registers".to_owned(),
        sass: 1600,
        main_loop: 900,
        tensor: 135,
        tensor_ratio: 0.15,
        ..Row::default()
    }
}

#[track_caller]
fn check_change(change: impl Fn(&mut Row), complaint: Option<&str>) {
    let mut now = row();
    change(&mut now);
    let problems = check(&[now], &[row()]);
    match complaint {
        None => assert!(problems.is_empty(), "{problems:?}"),
        Some(words) => {
            assert!(
                problems.len() == 1 && problems[0].contains(words),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn figures_within_their_margins_pass() {
    check_change(|_| {}, None);
    check_change(|row| row.registers = 208, None);
    check_change(|row| row.main_loop = 953, None);
    check_change(|row| row.tensor_ratio = 0.141, None);
    check_change(|row| row.conflict_ratio = Some(1.05), None);
    check_change(|row| row.registers = 100, None);
}

#[test]
fn figures_that_got_worse_fail() {
    check_change(|row| row.spills = 1, Some("local memory"));
    check_change(|row| row.registers = 209, Some("209 registers, 200 before"));
    check_change(|row| row.main_loop = 954, Some("954 instructions"));
    check_change(|row| row.blocks_per_sm = 1, Some("1 blocks"));
    check_change(|row| row.conflict_ratio = Some(1.06), Some("1.060 passes"));
    check_change(|row| row.threads = 0, Some("__launch_bounds__"));
    check_change(|row| row.lacks_dynamic_shared = true, Some("launches.rs"));
}

#[test]
fn attention_must_keep_the_tensor_cores_busy_on_sm_80() {
    let mut low = row();
    low.tensor_ratio = 0.139;
    let problems = check(&[low.clone()], &[low.clone()]);
    assert!(
        problems.len() == 1 && problems[0].contains("below 0.14"),
        "{problems:?}"
    );
    low.arch = "sm_86".to_owned();
    assert!(check(&[low.clone()], &[low]).is_empty());
}

#[test]
fn new_and_missing_kernels_are_told() {
    assert!(check(&[row()], &[])[0].contains("not in the table"));
    assert!(check(&[], &[row()])[0].contains("no such kernel"));
}

#[test]
fn the_table_is_read_as_it_was_written() {
    let rows = vec![row()];
    assert_eq!(parse_csv(&csv(&rows)).unwrap(), rows);
    assert!(parse_csv("entry\n").is_err());
}
