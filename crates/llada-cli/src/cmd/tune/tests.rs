use clap::Parser as _;
use llada::Protocol;
use llada::eval::{caches, rules};

use super::*;
use crate::args::{Args, Command};
use crate::config::overrides;

#[test]
fn flags_that_are_recommended_are_what_was_measured() {
    let protocols = [
        Protocol::Llada,
        Protocol::BlockDiffusion,
        Protocol::Editing,
        Protocol::Rewriting {
            delete_token_id: 1,
            split_token_id: 2,
        },
        Protocol::Dream,
    ];
    let rules = protocols.into_iter().flat_map(rules);
    for setting in rules.chain(caches(6)).chain(caches(64)) {
        let flags = setting.flags();
        let line = ["llada", "generate", "x"].into_iter();
        let args = Args::try_parse_from(line.chain(flags.split(' '))).expect(&flags);
        let Command::Generate(args) = args.command else {
            panic!("{flags}: generate was asked for");
        };
        let parsed = overrides(&args.sampler, None).expect(&flags);
        assert_eq!(parsed, setting.overrides(&Overrides::default()), "{flags}");
    }
}
