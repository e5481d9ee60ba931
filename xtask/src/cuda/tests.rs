//! What is pinned, and what is said when something is missing.

use super::toolkit::parse_version;
use super::{Folder, LIBCLANG, TOOLKIT, pip_failure};

#[test]
fn every_package_is_pinned() {
    for package in TOOLKIT.iter().chain([&LIBCLANG]) {
        let (name, version) = package.split_once("==").unwrap();
        assert!(!name.is_empty());
        assert_eq!(version.split('.').count(), 3, "{package}");
        assert!(!version.contains('*'), "{package}");
    }
}

#[test]
fn the_version_of_nvcc_is_read() {
    let text = "nvcc: NVIDIA (R) Cuda compiler driver\n\
        Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler\n";
    assert_eq!(parse_version(text), Some((13, 0)));
    assert_eq!(parse_version("release 12.8, V12.8.93"), Some((12, 8)));
    assert_eq!(parse_version("gcc 12"), None);
}

#[test]
fn a_missing_network_is_told_from_other_failures() {
    let offline = "WARNING: Retrying (Retry(total=0)) after connection broken by \
        'NewConnectionError: Failed to establish a new connection: [Errno -3] Temporary failure \
        in name resolution': /simple/libclang/";
    assert!(pip_failure(offline, "https://i").starts_with("https://i cannot be reached"));
    let other = "ERROR: No space left on device";
    assert!(pip_failure(other, "https://i").contains("No space left"));
}

#[test]
fn an_environment_is_whole_only_with_its_marker_and_links() {
    let target = std::env::temp_dir().join(format!("llada-xtask-cuda-{}", std::process::id()));
    let folder = Folder::below(&target);
    std::fs::create_dir_all(folder.venv.join("native")).unwrap();
    assert!(!folder.is_complete(&[LIBCLANG]));
    std::fs::write(&folder.marker, format!("{LIBCLANG}\n")).unwrap();
    assert!(!folder.is_complete(&[LIBCLANG]));
    super::link(&folder.venv.join("native"), &folder.libclang).unwrap();
    assert!(folder.is_complete(&[LIBCLANG]));
    assert!(!folder.is_complete(TOOLKIT));
    assert!(!folder.has_foreign_libclang());

    let sh = xshell::Shell::new().unwrap();
    folder.remove_own(&sh).unwrap();
    assert!(!folder.venv.exists() && !folder.marker.exists());
    assert!(std::fs::read_link(&folder.libclang).is_err());
    std::fs::remove_dir_all(&target).unwrap();
}
