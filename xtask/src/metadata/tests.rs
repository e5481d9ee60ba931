//! Tests of the reduction of `cargo metadata`.

use serde_json::json;

use super::{DependencyKind, Metadata};

#[test]
fn workspace_members_are_told_from_third_party_packages() {
    let json = json!({
        "workspace_root": "/w",
        "target_directory": "/w/target",
        "workspace_members": ["path+file:///w/crates/a#0.1.0"],
        "packages": [
            {
                "id": "path+file:///w/crates/a#0.1.0",
                "name": "a",
                "version": "0.1.0",
                "license": "MIT",
                "manifest_path": "/w/crates/a/Cargo.toml",
                "dependencies": [
                    { "name": "b", "kind": null },
                    { "name": "c", "kind": "dev" },
                    { "name": "d", "kind": "build" },
                ],
                "targets": [
                    { "kind": ["lib"], "name": "a" },
                    { "kind": ["example"], "name": "fill" },
                ],
            },
            { "id": "registry#b@1.0.0", "name": "b", "version": "1.0.0", "license": null },
        ],
    });
    let metadata = Metadata::parse(&json).unwrap();
    let [member] = metadata.members.as_slice() else {
        panic!("one member")
    };
    assert_eq!(
        (member.name.as_str(), member.dir.as_str()),
        ("a", "crates/a")
    );
    assert_eq!(member.examples, ["fill"]);
    let kinds: Vec<_> = member.dependencies.iter().map(|d| d.kind).collect();
    assert_eq!(
        kinds,
        [
            DependencyKind::Normal,
            DependencyKind::Dev,
            DependencyKind::Build
        ]
    );
    let [package] = metadata.third_party.as_slice() else {
        panic!("one package")
    };
    assert_eq!(
        (package.name.as_str(), package.license.as_deref()),
        ("b", None)
    );
}

#[test]
fn a_missing_field_is_named() {
    let error = Metadata::parse(&json!({ "workspace_root": "/w" })).unwrap_err();
    assert_eq!(error.to_string(), "no array \"workspace_members\"");
}
