//! The decoys themselves.

use xshell::{Shell, cmd};

use super::{Decoys, optional};

#[test]
fn a_program_that_was_called_is_told() {
    let target = std::env::temp_dir().join(format!("llada-xtask-decoys-{}", std::process::id()));
    let sh = Shell::new().unwrap();
    let decoys = Decoys::set(&sh, &target).unwrap();
    decoys.remove().unwrap();

    let decoys = Decoys::set(&sh, &target).unwrap();
    let call = cmd!(sh, "sh -c 'python3 -c pass'").quiet().ignore_stderr();
    assert!(call.run().is_err());
    let error = decoys.remove().unwrap_err().to_string();
    assert!(error.contains("python3 -c pass"), "{error}");
    std::fs::remove_dir_all(&target).unwrap();
}

#[test]
fn optional_packages_are_found_by_their_names() {
    assert_eq!(optional("llada-cli v0.1.0 (/w)\nserde v1.0.0\n"), [""; 0]);
    assert_eq!(optional("serde v1.0.0\ncudarc v0.19.10\n"), ["cudarc"]);
    assert_eq!(optional("mpi v0.8.2\nmpi-sys v0.2.4\n"), ["mpi", "mpi-sys"]);
}
