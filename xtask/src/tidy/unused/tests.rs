//! Tests of the rule.

use super::{Exception, File, check};
use crate::metadata::{Dependency, DependencyKind, Member};

const ITEM: (&str, &str) = ("crates/llada-a/src/a.rs", "pub fn planted() {}\n");
const MESSAGE: &str = "crates/llada-a/src/a.rs:1: planted is public, and only tests use it";

/// `xtask` uses the facade, which uses `llada-b`, which uses `llada-a`.
fn members() -> Vec<Member> {
    let member = |dir: &str, used: &[&str]| Member {
        name: dir.rsplit('/').next().unwrap_or(dir).to_owned(),
        dir: dir.to_owned(),
        dependencies: (used.iter())
            .map(|name| Dependency {
                name: (*name).to_owned(),
                kind: DependencyKind::Normal,
            })
            .collect(),
        ..Member::default()
    };
    vec![
        member("crates/llada-a", &[]),
        member("crates/llada-b", &["llada-a"]),
        member("crates/llada", &["llada-b"]),
        member("crates/llada-other", &[]),
        member("crates/ptxsim", &[]),
        member("crates/llada-testkit", &["llada-a"]),
        member("xtask", &["llada"]),
    ]
}

#[track_caller]
fn check_files(files: &[(&str, &str)], exceptions: &[Exception], expected: &[&str]) {
    let file = |(path, text): &(&str, &str)| File {
        path: (*path).to_owned(),
        bytes: 0,
        text: Some((*text).to_owned()),
    };
    let files: Vec<File> = files.iter().map(file).collect();
    let lines: Vec<String> = check(&files, &members(), exceptions)
        .into_iter()
        .map(|offence| format!("{}: {}", offence.path, offence.wrong))
        .collect();
    assert_eq!(lines, expected);
}

/// What comes of the planted item beside another file.
#[track_caller]
fn check_beside(path: &str, text: &str, is_used: bool) {
    let expected: &[&str] = if is_used { &[] } else { &[MESSAGE] };
    check_files(&[ITEM, (path, text)], &[], expected);
}

#[test]
fn an_item_that_nothing_uses_is_found() {
    check_files(&[ITEM], &[], &[MESSAGE]);
    for item in [
        "pub struct planted;",
        "pub enum planted {}",
        "pub trait planted {}",
        "pub const planted: u8 = 0;",
        "pub const fn planted() {}",
        "pub unsafe fn planted() {}",
        "pub static planted: u8 = 0;",
        "pub type planted = u8;",
        "impl A { pub fn planted(&self) {} }",
    ] {
        check_files(&[(ITEM.0, item)], &[], &[MESSAGE]);
    }
    check_files(&[(ITEM.0, "pub(crate) fn planted() {}")], &[], &[]);
    check_files(&[(ITEM.0, "pub mod planted;")], &[], &[]);
    check_files(&[("crates/llada/src/lib.rs", ITEM.1)], &[], &[]);
    check_files(&[("crates/ptxsim/src/a.rs", ITEM.1)], &[], &[]);
}

#[test]
fn code_that_is_no_test_is_a_user() {
    let call = "fn f() { planted(); }";
    for path in [
        ITEM.0,
        "crates/llada-b/src/lib.rs",
        "crates/llada-b/build.rs",
        "crates/llada/examples/e.rs",
        "xtask/src/main.rs",
    ] {
        check_beside(path, call, true);
    }
    check_beside("README.md", "Text.\n```rust\nplanted();\n```\n", true);
    check_beside(
        "crates/llada-b/src/lib.rs",
        "fn f(x: impl Fn(planted)) {}",
        true,
    );
}

#[test]
fn tests_and_those_who_do_not_depend_on_it_are_no_users() {
    let call = "fn f() { planted(); }";
    for path in [
        "crates/llada-a/src/a/tests.rs",
        "crates/llada-a/tests/it/main.rs",
        "crates/llada-a/examples/e.rs",
        "crates/llada-testkit/src/lib.rs",
        "crates/llada-b/kernel.cu",
        "crates/llada-other/src/lib.rs",
        "tools/a.rs",
    ] {
        check_beside(path, call, false);
    }
    let of_test = |attribute: &str| format!("{attribute}\nmod tests {{ fn f() {{ planted(); }} }}");
    check_beside("crates/llada-b/src/lib.rs", &of_test("#[cfg(test)]"), false);
    check_beside(
        "crates/llada-b/src/lib.rs",
        &of_test("#[cfg(all(test, unix))]"),
        false,
    );
    check_beside(
        "crates/llada-b/src/lib.rs",
        &of_test("#[cfg(not(test))]"),
        true,
    );
    let after = "#[cfg(test)]\nmod tests;\nfn f() { planted(); }";
    check_beside("crates/llada-b/src/lib.rs", after, true);
}

#[test]
fn some_mentions_are_no_uses() {
    for text in [
        "pub use a::planted;",
        "use a::{b, planted};",
        "impl A for planted {}",
        "// planted",
        "const A: &str = \"planted\";",
        "fn planted() {}",
    ] {
        check_beside("crates/llada-b/src/lib.rs", text, false);
    }
    check_beside("README.md", "`planted`\n```sh\nplanted\n```\n", false);
}

#[test]
fn an_exception_is_for_what_nothing_uses() {
    let exception = |name| Exception {
        name,
        package: "llada-a",
        reason: "why",
    };
    check_files(&[ITEM], &[exception("planted")], &[]);
    let here = "xtask/src/tidy/unused.rs";
    let used = format!("{here}: planted of llada-a is excepted (why), but it is used");
    let user = ("crates/llada-b/src/lib.rs", "fn f() { planted(); }");
    check_files(&[ITEM, user], &[exception("planted")], &[&used]);
    let gone = format!("{here}: b is excepted, which is no public item of llada-a");
    check_files(&[ITEM], &[exception("b")], &[MESSAGE, &gone]);
}
