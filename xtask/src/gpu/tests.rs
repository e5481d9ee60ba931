//! Reading what cargo and the linker say.

use std::path::Path;

use super::{Artifact, PEERS, needed_glibc};

#[test]
fn the_greatest_version_of_glibc_is_found() {
    let program = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0";
    assert_eq!(needed_glibc(program), Some((2, 34)));
    assert_eq!(needed_glibc(b"static"), None);
}

#[test]
fn programs_are_told_from_other_messages() {
    let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/crates/llada-cuda#0.1.0",
        "target":{"kind":["test"],"name":"it"},"profile":{"test":true},"executable":"/t/it-1"}"#;
    let artifact = Artifact::parse(line).unwrap();
    assert_eq!(artifact.test_name(), "llada-cuda-it");
    assert_eq!(artifact.executable, Path::new("/t/it-1"));
    let unit = line.replace(r#"["test"]"#, r#"["lib"]"#);
    assert_eq!(
        Artifact::parse(&unit).unwrap().test_name(),
        "llada-cuda-unit"
    );
    let no_program = line.replace(r#""/t/it-1""#, "null");
    assert_eq!(Artifact::parse(&no_program), None);
    assert_eq!(Artifact::parse(r#"{"reason":"build-finished"}"#), None);
}

#[test]
fn the_scripts_find_what_they_import() {
    let root = crate::workspace_root().unwrap();
    for peer in PEERS {
        assert!(root.join("tools/peers").join(peer).exists(), "{peer}");
    }
    let run = std::fs::read_to_string(root.join("tools/gpu/run.sh")).unwrap();
    for word in run.split_whitespace().filter(|word| word.ends_with(".py")) {
        assert!(root.join("tools/gpu").join(word).exists(), "{word}");
    }
}
