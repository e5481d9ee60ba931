//! Raw flags of models of other families: what their files may not say, and the settings of the
//! loops that they were published with.

use clap::Args as ClapArgs;
use clap::builder::BoolishValueParser;
use llada::OpenOptions;

/// What the files of a model may not say.
#[derive(Debug, Clone, Copy, Default, ClapArgs)]
pub(crate) struct OpenArgs {
    /// Id of the mask token, in place of the one that the files of --model name
    #[arg(long, alias = "mask_token_id", value_name = "ID", display_order = 901)]
    pub(crate) mask_token_id: Option<u32>,
}

impl From<OpenArgs> for OpenOptions {
    fn from(args: OpenArgs) -> Self {
        Self {
            mask_token_id: args.mask_token_id,
        }
    }
}

/// Apart from the flags of all models in the help.
const HEADING: &str = "Other families";

/// Settings of the sampler that models of other families have, with the names of their references;
/// one that the model's loop has not is an error.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct ProtocolArgs {
    /// Write block by block until one holds an end, not on a canvas of a fixed length (LLaDA,
    /// LLaDA-MoE, iLLaDA) [default: true of iLLaDA, false of the others]
    #[arg(
        long,
        help_heading = HEADING,
        alias = "variable_length",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub(crate) variable_length: Option<bool>,
    /// Make the end of the reasoning likelier, up to this much at the end of the answer: it is added
    /// to the logit of the next token of `</think>` (iLLaDA, whose evaluations give 100)
    #[arg(
        long,
        help_heading = HEADING,
        alias = "end_think_boost",
        value_name = "LOGIT",
        allow_negative_numbers = true
    )]
    pub(crate) end_think_boost: Option<f32>,
    /// The boost of token n of an answer of N is (n / N) ^ POWER of --end-think-boost (iLLaDA, whose
    /// evaluations give 3, of code 1) [default: 1]
    #[arg(long, help_heading = HEADING, alias = "end_think_power", value_name = "POWER")]
    pub(crate) end_think_power: Option<f32>,
    /// Take no more than the answer's length divided by N steps a block (LLaDA2.0) [default: 1]
    #[arg(long, help_heading = HEADING, alias = "minimal_topk", value_name = "N")]
    pub(crate) minimal_topk: Option<usize>,
    /// Replace a written token where another one is predicted with more than this probability; of
    /// LLaDA2.0 and 2.1, whose files are alike, this or one of the next two chooses the loop of 2.1
    /// [default: 0.9; LLaDA2.2: 0]
    #[arg(long, help_heading = HEADING, alias = "editing_threshold", value_name = "P")]
    pub(crate) editing_threshold: Option<f32>,
    /// Steps of a block after its last mask at most, to edit it (LLaDA2.1, 2.2) [default: 16]
    #[arg(long, help_heading = HEADING, alias = "max_post_steps", value_name = "N")]
    pub(crate) max_post_steps: Option<usize>,
    /// Masks that a step fills at least (LLaDA2.1) [default: 1]
    #[arg(long, help_heading = HEADING, alias = "num_to_transfer", value_name = "N")]
    pub(crate) num_to_transfer: Option<usize>,
    /// Which masks a step fills: origin (at random), `maskgit_plus`, `topk_margin` or entropy (Dream)
    /// [default: origin]
    #[arg(long, help_heading = HEADING, value_name = "RULE")]
    pub(crate) alg: Option<String>,
    /// Draw the masks of a step by their confidence at this temperature; 0 takes the best (Dream)
    /// [default: 0]
    #[arg(long, help_heading = HEADING, alias = "alg_temp", value_name = "TEMPERATURE")]
    pub(crate) alg_temp: Option<f32>,
    /// Where the time of the steps ends, between 0 and 1 (Dream) [default: 0.001]
    #[arg(long, help_heading = HEADING)]
    pub(crate) eps: Option<f32>,
}
