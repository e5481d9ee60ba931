//! What models of other families have that a dense LLaDA has not.

use llada_tensor::ops::moe::{Router, RouterRule};

use crate::{Error, Result};

/// What a model of another family has that a dense LLaDA has not; by default nothing.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a part of its own")]
pub struct Extras {
    /// Width of a head where it is not `d_model / n_heads`.
    pub head_dim: Option<usize>,
    /// Dimensions of a head that are rotated, the first ones; `None`: all.
    pub rotary_dim: Option<usize>,
    /// Queries and keys are normalized, each head by itself, before they are rotated.
    pub qk_norm: bool,
    /// Bias in `attn_out`.
    pub attn_out_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// The output at a position is about the token after it (Dream).
    pub shifts_logits: bool,
    /// Experts in place of the MLP of some blocks.
    pub moe: Option<MoeConfig>,
    /// Tokens that edit the text when they are predicted (`LLaDA2.2`).
    pub edit_tokens: Option<EditTokens>,
}

/// The experts of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// How the experts of a token are chosen.
    pub router: Router,
    /// Whether the router has a bias for each expert, which changes the choice.
    pub router_bias: bool,
    /// Width of an expert's MLP.
    pub expert_width: usize,
    /// Width of the MLP that all tokens go through beside the experts.
    pub shared_width: Option<usize>,
    /// `[n_layers]`: whether a block has experts; the others have an MLP of `mlp_hidden_size`.
    pub layers: Vec<bool>,
}

impl MoeConfig {
    /// Whether its numbers fit together.
    pub(super) fn check(&self) -> Result<()> {
        let Router { n_experts, k, rule } = self.router;
        let unsupported =
            |field, value: usize, expected: String| Err(Error::unsupported(field, value, expected));
        if n_experts == 0 || n_experts > 1 << 16 {
            return unsupported(
                "num_experts",
                n_experts,
                "a number from 1 to 65536".to_owned(),
            );
        }
        let allowed = match rule {
            RouterRule::Softmax => n_experts,
            RouterRule::Groups { n_group, .. } if n_group == 0 || n_experts % n_group != 0 => {
                let expected = format!("a divisor of the {n_experts} experts");
                return unsupported("n_group", n_group, expected);
            }
            RouterRule::Groups {
                n_group,
                topk_group,
                ..
            } if topk_group == 0 || topk_group > n_group => {
                let expected = format!("from 1 to n_group, {n_group}");
                return unsupported("topk_group", topk_group, expected);
            }
            RouterRule::Groups {
                n_group,
                topk_group,
                ..
            } => n_experts / n_group * topk_group,
            RouterRule::Capacity { capacity, .. } => capacity.min(n_experts),
        };
        if k == 0 || k > allowed {
            let expected = format!("from 1 to {allowed}, the experts that can be chosen");
            return unsupported("num_experts_per_tok", k, expected);
        }
        match self.expert_width {
            0 => unsupported("moe_intermediate_size", 0, "at least 1".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Tokens that edit the text when they are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditTokens {
    /// Removes its place.
    pub delete: u32,
    /// Makes two places of one: a mask, and the token that was there.
    pub split: u32,
}
