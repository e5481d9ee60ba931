//! `llada completions` and `llada man`.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;
use crate::output::print;

pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "llada", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// One page, with the flags of every command.
pub(crate) fn page() -> Result<()> {
    let mut page = Vec::new();
    let command = Args::command();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for command in command.get_subcommands() {
        let name = format!("llada {}", command.get_name());
        let man = clap_mangen::Man::new(command.clone().display_name(name));
        page.extend_from_slice(b".SH COMMAND\n");
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    print(&String::from_utf8_lossy(&page))
}
