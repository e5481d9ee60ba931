//! Settings that `/set` changes: flags of the sampler, read by the parser of the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context as _, Result};
use clap::FromArgMatches as _;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, CommandFactory as _};

use super::command::switch;
use crate::args::{AnswerArgs, Args};
use crate::config::Misuse;

/// Flags of the command line that are no settings of an answer.
const OTHERS: [&str; 3] = ["n", "trace", "watch"];

/// The settings that are not the usual ones, by the names of their flags: a flag alone has no value,
/// and one that may be given several times can have several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, Vec<OsString>>);

/// The flags that can be set.
fn command() -> Command {
    AnswerArgs::augment_args(Command::new("/set"))
        .no_binary_name(true)
        .disable_help_flag(true)
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

impl Settings {
    /// Those of `llada chat FLAGS`.
    ///
    /// # Errors
    /// If `line` is no such command line.
    pub(super) fn of_command_line(line: impl Iterator<Item = OsString>) -> Result<Self> {
        let matches = Args::command().try_get_matches_from(line)?;
        let (_, chat) = matches.subcommand().context("a command line of chat")?;
        let mut settings = Self::default();
        // An answer has an end, and what would come after it is not read.
        settings.0.insert("early-stop".to_owned(), Vec::new());
        for arg in command().get_arguments().filter(|arg| !is_other(arg)) {
            settings.take(arg, chat);
        }
        Ok(settings)
    }

    fn take(&mut self, arg: &Arg, matches: &ArgMatches) {
        let id = arg.get_id().as_str();
        let is_given = matches.value_source(id) == Some(ValueSource::CommandLine);
        if let (true, Some(name)) = (is_given, arg.get_long()) {
            let values = matches.get_raw(id).filter(|_| !is_switch(arg));
            let values = values.into_iter().flatten().map(OsString::from);
            self.0.insert(name.to_owned(), values.collect());
        }
    }

    /// The settings with a change.
    ///
    /// # Errors
    /// If there is no such setting, or a switch is neither on nor off.
    pub(super) fn with(mut self, name: &str, value: &str) -> Result<Self> {
        let command = command();
        let long = name.trim_start_matches('-').replace('_', "-");
        let is_it = |arg: &&Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(&*long) || aliases.contains(&&*long)
        };
        let mut settable = command.get_arguments().filter(|arg| !is_other(arg));
        let Some(arg) = settable.find(is_it) else {
            let names = names().join(", ");
            return Err(Misuse::of(format!(
                "/set {name}: no such setting; there are {names}"
            )));
        };
        let long = arg.get_long().unwrap_or_default().to_owned();
        match (is_switch(arg), value) {
            (_, "default") => self.0.remove(&long),
            (false, value) => self.0.insert(long, vec![value.into()]),
            (true, value) => match switch(value) {
                Some(true) => self.0.insert(long, Vec::new()),
                Some(false) => self.0.remove(&long),
                None => {
                    return Err(Misuse::of(format!(
                        "/set {name} {value}: expected on or off"
                    )));
                }
            },
        };
        Ok(self)
    }

    /// The flags.
    ///
    /// # Errors
    /// What the parser of the command line says of them.
    pub(super) fn parse(&self) -> Result<AnswerArgs> {
        let flags = self.0.iter().flat_map(|(name, values)| {
            let with = |value: &OsString| {
                let mut flag = OsString::from(format!("--{name}="));
                flag.push(value);
                flag
            };
            match values.is_empty() {
                true => vec![format!("--{name}").into()],
                false => values.iter().map(with).collect(),
            }
        });
        let matches = command().try_get_matches_from(flags);
        let args = matches.and_then(|matches| AnswerArgs::from_arg_matches(&matches));
        args.map_err(|error| {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = first.split_whitespace().collect();
            let words = words.join(" ");
            Misuse::of(words.strip_prefix("error: ").unwrap_or(&words))
        })
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut space = "";
        for (name, values) in &self.0 {
            if values.is_empty() {
                write!(f, "{space}--{name}")?;
                space = " ";
            }
            for value in values {
                write!(f, "{space}--{name} {}", value.display())?;
                space = " ";
            }
        }
        Ok(())
    }
}

fn is_other(arg: &Arg) -> bool {
    arg.get_long().is_none_or(|long| OTHERS.contains(&long))
}

/// The names of all settings.
pub(super) fn names() -> Vec<String> {
    let command = command();
    let settable = command.get_arguments().filter(|arg| !is_other(arg));
    settable
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests;
