//! Flags.

use super::Args;

#[track_caller]
fn check(args: &[&str], expected: Option<(bool, Option<&str>)>) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let parsed = Args::parse(&args).ok();
    let expected = expected.map(|(cuda, architectures)| Args {
        cuda,
        architectures: architectures.map(str::to_owned),
    });
    assert_eq!(parsed, expected);
}

#[test]
fn architectures_need_cuda_and_a_list() {
    check(&[], Some((false, None)));
    check(&["--cuda"], Some((true, None)));
    check(
        &["--arch", "80,90a", "--cuda"],
        Some((true, Some("80,90a"))),
    );
    check(&["--cuda", "--arch", "ptx"], Some((true, Some("ptx"))));
    check(&["--arch", "80"], None);
    check(&["--cuda", "--arch"], None);
    check(&["--cuda", "--arch", "sm_80"], None);
    check(&["--cuda", "--arch", "75"], None);
    check(&["--gpu"], None);
}
