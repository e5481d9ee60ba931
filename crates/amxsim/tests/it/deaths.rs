//! What still kills the process: each case runs in a child.

use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::asm::{config, load, load_config, start};

const CASE: &str = "AMXSIM_DEATH";

/// Not a test of its own: the child of the others, which says in a variable how to die.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    start();
    // SAFETY: whatever these do, the process ends with it.
    unsafe {
        match case.as_str() {
            "survive" => load_config(&config(&[(16, 64)])),
            "ud2" => asm!("ud2"),
            // An instruction of AMX in every field but one.
            "wrong map" => asm!(".byte 0xc4, 0xe3, 0x78, 0x49, 0xc0"),
            "sent" => {
                libc::raise(libc::SIGILL);
            }
            "no configuration" => asm!("tilezero tmm0"),
            "tile without a shape" => {
                load_config(&config(&[(16, 64)]));
                load(1, &[0; 1024]);
            }
            "same tile twice" => {
                load_config(&config(&[(16, 64); 8]));
                // tdpbf16ps tmm0, tmm1, tmm1
                asm!(".byte 0xc4, 0xe2, 0x72, 0x5c, 0xc1");
            }
            "shapes that do not fit" => {
                load_config(&config(&[(16, 64), (16, 64), (15, 64)]));
                asm!("tdpbusd tmm0, tmm1, tmm2");
            }
            "broken words" => {
                load_config(&config(&[(16, 63)]));
                load(0, &[0; 1024]);
            }
            "palette" => load_config(&[2; 64]),
            "too many rows" => load_config(&config(&[(17, 64)])),
            "rows too long" => load_config(&config(&[(16, 65)])),
            "rows of nothing" => load_config(&config(&[(16, 0)])),
            "reserved bytes" => {
                let mut config = config(&[(16, 64)]);
                config[40] = 1;
                load_config(&config);
            }
            "no memory" => {
                load_config(&config(&[(16, 64)]));
                asm!("tileloadd tmm0, [{p} + {s}]", p = in(reg) 8usize, s = in(reg) 64usize);
            }
            case => panic!("{case}"),
        }
    }
}

/// The signal that ends a child.
fn signal(case: &str) -> Option<i32> {
    let status = Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["--exact", "deaths::child"])
        .env(CASE, case)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the file runs");
    assert!(case != "survive" || status.success());
    status.signal()
}

#[track_caller]
fn check(cases: &[&str], expected: i32) {
    for case in cases {
        assert_eq!(signal(case), Some(expected), "{case}");
    }
}

#[test]
fn a_child_that_does_nothing_wrong_survives() {
    assert_eq!(signal("survive"), None);
}

#[test]
fn other_illegal_instructions_kill() {
    check(&["ud2", "wrong map"], libc::SIGILL);
}

#[test]
fn a_signal_that_is_sent_kills() {
    check(&["sent"], libc::SIGILL);
}

#[test]
fn tiles_that_the_processor_refuses_kill() {
    check(
        &[
            "no configuration",
            "tile without a shape",
            "same tile twice",
            "shapes that do not fit",
            "broken words",
        ],
        libc::SIGILL,
    );
}

/// The processor raises another fault than of an illegal instruction, the emulator cannot.
#[test]
fn configurations_that_the_processor_refuses_kill() {
    let expected = match amxsim::emulate() {
        amxsim::Amx::Native => libc::SIGSEGV,
        _ => libc::SIGILL,
    };
    check(
        &[
            "palette",
            "too many rows",
            "rows too long",
            "rows of nothing",
            "reserved bytes",
        ],
        expected,
    );
}

#[test]
fn memory_that_is_not_there_kills() {
    check(&["no memory"], libc::SIGSEGV);
}
