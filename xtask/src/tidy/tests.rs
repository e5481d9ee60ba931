//! The rules on the workspace itself.

use xshell::Shell;

use super::{Offence, check, walk};
use crate::metadata::Reach;

fn shell() -> Shell {
    let sh = Shell::new().unwrap();
    sh.change_dir(crate::workspace_root().unwrap());
    sh
}

#[test]
fn the_workspace_is_tidy() {
    let report = check(&shell(), Reach::ThisPlatform).unwrap_or_else(|_| {
        println!("skipped: the licenses of packages, since not all of them are on this machine");
        check(&shell(), Reach::Members).unwrap()
    });
    let lines: Vec<String> = report.offences.iter().map(Offence::to_string).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn without_git_the_folder_is_walked() {
    let found = walk(&shell().current_dir()).unwrap();
    assert!(
        found
            .iter()
            .any(|path| path.ends_with("xtask/src/tidy/tests.rs"))
    );
    assert!(
        !found
            .iter()
            .any(|path| path.starts_with("target") || path.starts_with(".git/"))
    );
}

#[test]
fn an_offence_is_one_line() {
    let offence = Offence::new("a/b.rs", "it is wrong", "do this");
    assert_eq!(offence.to_string(), "a/b.rs: it is wrong; do this");
}
