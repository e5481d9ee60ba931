//! The section `[model]` of a training configuration.

use std::path::Path;

use anyhow::{Context as _, Result};
use llada::train::{Objective, SpecialIds, TrainConfig};
use llada::{Family, ModelConfig, Tokenizer};
use serde_json::{Map, Value};

/// Fields that follow from something else.
const FOLLOWS: [(&str, &str); 2] = [
    (
        "causal",
        "objective = \"autoregressive\" makes a causal model",
    ),
    (
        "vocab_size",
        "the tokenizer says it; embedding_size may be larger",
    ),
];

/// The mask and the end of a text: as the section says, else as the tokenizer names them.
pub(super) fn special_ids(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<SpecialIds> {
    let given = |key: &str| match config.model.get(key) {
        None => Ok(None),
        Some(id) => {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let known = id.filter(|id| tokenizer.token(*id).is_some());
            known.map(Some).with_context(|| {
                format!("[model] {key} must be the id of a token of the tokenizer")
            })
        }
    };
    let (eos, mask) = (given("eos_token_id")?, given("mask_token_id")?);
    Ok(SpecialIds::given(tokenizer, eos, mask)?)
}

/// The section with what follows from the tokenizer and the data.
pub(super) fn model_config(
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    special: SpecialIds,
) -> Result<ModelConfig> {
    let mut fields = config.model.clone();
    if let Some(name) = fields.get("preset").and_then(Value::as_str)
        && let Some(preset) = llada::model::preset(name)
        && preset.family != Family::Llada
    {
        // Its `config.json`, with what the section says in place of that.
        fields.remove("preset");
        let mut all = preset.other;
        for of_files in [
            "vocab_size",
            "mask_token_id",
            "eos_token_id",
            "pad_token_id",
        ] {
            all.remove(of_files);
        }
        all.extend(fields);
        return of_family(all, config, tokenizer, special);
    }
    if let Some(Value::Array(names)) = fields.get("architectures")
        && !names
            .iter()
            .any(|name| *name == Family::Llada.architecture())
    {
        return of_family(fields, config, tokenizer, special);
    }
    check_names(&fields)?;
    if let Some(name) = fields.remove("preset") {
        let name = name.as_str().unwrap_or_default().to_owned();
        let preset = llada::model::preset(&name).with_context(|| {
            let known = llada::model::PRESETS.join(", ");
            format!("preset {name}: unknown, expected {known}")
        })?;
        let Value::Object(mut base) = serde_json::to_value(preset)? else {
            unreachable!("a configuration is an object")
        };
        base.remove("embedding_size");
        base.extend(fields);
        fields = base;
    }
    for needed in ["d_model", "n_heads", "n_layers"] {
        let is_there = fields.contains_key(needed);
        anyhow::ensure!(is_there, "{needed} is missing, or preset = \"NAME\"");
    }
    check_types(&config.model)?;
    for (field, value) in [
        ("vocab_size", tokenizer.vocab_size()),
        ("mask_token_id", special.mask_token_id as usize),
        ("eos_token_id", special.eos_token_id as usize),
    ] {
        fields.insert(field.to_owned(), value.into());
    }
    if !fields.contains_key("max_sequence_length") {
        let length = config.data.sequence_length;
        fields.insert("max_sequence_length".to_owned(), length.into());
    }
    let causal = config.objective == Objective::Autoregressive;
    fields.insert("causal".to_owned(), causal.into());
    Ok(ModelConfig::from_json(
        &serde_json::to_vec(&fields)?,
        Path::new("[model]"),
    )?)
}

/// The configuration of another family, in the words of its `config.json`.
fn of_family(
    mut fields: Map<String, Value>,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    special: SpecialIds,
) -> Result<ModelConfig> {
    for (field, why) in FOLLOWS {
        anyhow::ensure!(!fields.contains_key(field), "{field} is no key: {why}");
    }
    anyhow::ensure!(
        config.objective == Objective::Diffusion,
        "objective = \"autoregressive\" needs a model of the family {}",
        Family::Llada.architecture()
    );
    for (field, value) in [
        ("vocab_size", tokenizer.vocab_size()),
        ("mask_token_id", special.mask_token_id as usize),
        ("eos_token_id", special.eos_token_id as usize),
    ] {
        fields.insert(field.to_owned(), value.into());
    }
    let length = config.data.sequence_length.into();
    fields.entry("max_position_embeddings").or_insert(length);
    fields.remove("embedding_size");
    Ok(ModelConfig::from_json(
        &serde_json::to_vec(&fields)?,
        Path::new("[model]"),
    )?)
}

/// Names the key whose value has another type.
fn check_types(fields: &Map<String, Value>) -> Result<()> {
    let base = serde_json::to_value(crate::config::preset(llada::model::PRESETS[0])?)?;
    for (field, value) in fields.iter().filter(|(field, _)| *field != "preset") {
        let mut one = base.clone();
        one[field] = value.clone();
        let parsed = serde_json::from_value::<ModelConfig>(one);
        parsed.with_context(|| format!("{field} = {value}"))?;
    }
    Ok(())
}

/// Refuses keys that would change nothing.
fn check_names(fields: &Map<String, Value>) -> Result<()> {
    /// Less alike names are no help.
    const ALIKE: f64 = 0.8;
    for (field, why) in FOLLOWS {
        anyhow::ensure!(!fields.contains_key(field), "{field} is no key: {why}");
    }
    let mut known = ModelConfig::field_names();
    known.push("preset".to_owned());
    if let Some(field) = fields.keys().find(|field| !known.contains(field)) {
        let likeness = |name: &&String| strsim::jaro_winkler(name, field);
        let near = known
            .iter()
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let other = match field.as_str() {
            // Names of the same in other models.
            "hidden_size" | "n_embd" | "dim" => Some("d_model"),
            "num_hidden_layers" | "n_layer" | "num_layers" => Some("n_layers"),
            "num_attention_heads" | "n_head" | "num_heads" => Some("n_heads"),
            "num_key_value_heads" => Some("n_kv_heads"),
            "intermediate_size" => Some("mlp_hidden_size"),
            "max_position_embeddings" | "block_size" | "n_ctx" => Some("max_sequence_length"),
            "tie_word_embeddings" => Some("weight_tying"),
            _ => near
                .filter(|name| likeness(name) > ALIKE)
                .map(String::as_str),
        };
        let hint = other.map_or(String::new(), |name| format!("; did you mean {name}?"));
        anyhow::bail!("unknown key {field}{hint}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Tests of the section.

    use super::*;

    fn config(model: &str) -> Result<ModelConfig> {
        let toml = format!(
            "[data]\ntrain = [\"a\"]\nsequence_length = 8\n[model]\n{model}\n[train]\nsteps = 1\n\
             batch_size = 1\n"
        );
        let config = TrainConfig::from_toml(&toml, Path::new("c.toml"))?;
        let tokenizer = Tokenizer::character_level(["abc"].into_iter(), 1)?;
        let special = special_ids(&config, &tokenizer)?;
        model_config(&config, &tokenizer, special)
    }

    const SHAPE: &str = "d_model = 16\nn_heads = 2\nn_layers = 1\n";

    #[test]
    fn keys_that_do_not_exist_are_errors_that_name_a_near_one() {
        let check = |line: &str, expected: &str| {
            let error = config(&format!("{SHAPE}{line}")).expect_err(line);
            assert_eq!(format!("{error:#}"), expected);
        };
        check(
            "weight_tieing = true",
            "unknown key weight_tieing; did you mean weight_tying?",
        );
        check(
            "n_kv_head = 1",
            "unknown key n_kv_head; did you mean n_kv_heads?",
        );
        check(
            "hidden_size = 16",
            "unknown key hidden_size; did you mean d_model?",
        );
        check("zzz = 16", "unknown key zzz");
        let string = "rope_theta = \"1e4\": invalid type: string \"1e4\", expected f32";
        check("rope_theta = \"1e4\"", string);
        check(
            "causal = true",
            "causal is no key: objective = \"autoregressive\" makes a causal model",
        );
        check(
            "mask_token_id = 77",
            "[model] mask_token_id must be the id of a token of the tokenizer",
        );
        let error = config("d_model = 16\nn_layers = 1").expect_err("no heads");
        assert_eq!(
            error.to_string(),
            "n_heads is missing, or preset = \"NAME\""
        );
    }

    #[test]
    fn the_section_may_name_the_mask_and_the_end() {
        let plain = config(SHAPE).expect("valid");
        assert_eq!((plain.mask_token_id, plain.eos_token_id.usual()), (0, 1));
        assert_eq!((plain.vocab_size, plain.max_sequence_length), (6, 8));
        let lines =
            format!("{SHAPE}mask_token_id = 2\nrope_theta = 500.0\nactivation_type = \"silu\"");
        let named = config(&lines).expect("valid");
        assert_eq!((named.mask_token_id, named.eos_token_id.usual()), (2, 1));
    }

    #[test]
    fn other_families_are_described_in_the_words_of_their_configuration() {
        let fields = "architectures = [\"LLaDAMoEModelLM\"]\nhidden_size = 16\nnum_hidden_layers = 1\n\
                      num_attention_heads = 2\nnum_experts = 4\nnum_experts_per_tok = 2\n\
                      expert_intermediate_size = 8\nrms_norm_eps = 1e-5\nrope_theta = 1e4";
        let got = config(fields).expect("valid");
        assert_eq!(got.family, Family::LladaMoe);
        assert_eq!(got.experts(0).expect("experts").router.n_experts, 4);
        let small = config("preset = \"illada-8b\"\nnum_hidden_layers = 2\nhidden_size = 64")
            .expect("valid");
        assert_eq!(
            (small.family, small.n_layers, small.d_model),
            (Family::Illada, 2, 64)
        );
        let error =
            config(&fields.replace("num_experts = 4", "num_experts = 1")).expect_err("one expert");
        assert!(
            format!("{error:#}").contains("num_experts_per_tok"),
            "{error:#}"
        );
    }
}
