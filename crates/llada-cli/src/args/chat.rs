//! Raw flags of `llada chat`.

use clap::Args as ClapArgs;

use super::{ModelArgs, SamplerArgs};

#[derive(Debug, ClapArgs)]
pub(crate) struct ChatArgs {
    /// What the system says before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// The chat template: its name, of several in the model's folder, or a file [default: that of
    /// the model]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<String>,
    /// Write the settled text of an answer as it comes, without the live picture; so it is where
    /// there is no terminal
    #[arg(long, conflicts_with = "watch")]
    pub(crate) plain: bool,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// What `/set` changes.
#[derive(Debug, ClapArgs)]
pub(crate) struct AnswerArgs {
    /// Tokens of an answer: a canvas that is filled as a whole, not a limit; of iLLaDA and LLaDA2.x,
    /// which write block by block, a limit [default: 64; the embedded model: 72; other models of
    /// characters: three times the conversation, or what the context has room for; iLLaDA and
    /// LLaDA2.x: 2048]
    #[arg(
        short = 'n',
        long,
        alias = "gen_length",
        visible_alias = "max-new-tokens",
        alias = "max_new_tokens"
    )]
    pub(crate) gen_length: Option<usize>,
    /// End an answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) sampler: SamplerArgs,
}
