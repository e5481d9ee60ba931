//! `llada inspect`.

use anyhow::Result;
use llada::ModelConfig;
use llada::diffusion::PredictorInfo;
use llada::model::{Family, Origin};
use llada::sample::{Horizon, Overrides, Policy, Process, Protocol, Task};
use llada::tensor::ops::moe::RouterRule;
use serde_json::{Map, Value, json};

use crate::args::{Format, InspectArgs};
use crate::config::{open, preset};
use crate::output::print;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let mut tensor_types = None;
    let config = match (&args.preset, &args.dir) {
        (Some(name), _) => preset(name)?,
        (None, model) => {
            let checkpoint = open(model.as_deref(), &[], args.open)?;
            if let Origin::Gguf(file) = checkpoint.source().origin() {
                tensor_types = Some(file.tensor_types());
            }
            checkpoint.config().clone()
        }
    };
    let mut result = json!({
        "family": family(config.family),
        "total_parameters": config.total_parameters(),
        "non_embedding_parameters": config.non_embedding_parameters(),
    });
    if let (Value::Object(result), Value::Object(fields)) =
        (&mut result, serde_json::to_value(&config)?)
    {
        if let Some(experts) = experts(&config) {
            let active = config.active_parameters();
            result.insert("active_parameters".to_owned(), active.into());
            result.insert("experts".to_owned(), experts);
        }
        if let Some(size) = config.block_size {
            result.insert("block_size".to_owned(), size.get().into());
        }
        if !config.causal {
            result.insert("protocol".to_owned(), protocol_json(&config)?);
        }
        let types = tensor_types.map(|types| ("tensor_types".to_owned(), json!(types)));
        result.extend(types);
        result.extend(fields);
    }
    match args.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => {
            for (field, value) in result.as_object().into_iter().flatten() {
                print(&format!("{field:26} {value}\n"))?;
            }
            Ok(())
        }
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Llada => "LLaDA",
        Family::Illada => "iLLaDA",
        Family::LladaMoe => "LLaDA-MoE",
        Family::Llada2 => "LLaDA2.x",
        Family::Dream => "Dream",
    }
}

/// The experts of a block, and how a token's are chosen.
fn experts(config: &ModelConfig) -> Option<Value> {
    let moe = config.extras.moe.as_ref()?;
    let router = match moe.router.rule {
        RouterRule::Softmax => json!({ "rule": "softmax" }),
        RouterRule::Groups {
            n_group,
            topk_group,
            scale,
        } => json!({
            "rule": "sigmoid, in groups", "n_group": n_group, "topk_group": topk_group,
            "scale": scale,
        }),
        RouterRule::Capacity { capacity, scale } => json!({
            "rule": "sigmoid, a block's experts", "capacity": capacity, "scale": scale,
        }),
    };
    Some(json!({
        "count": moe.router.n_experts,
        "active": moe.router.k,
        "width": moe.expert_width,
        "shared_width": moe.shared_width,
        "layers": moe.layers.iter().filter(|has_experts| **has_experts).count(),
        "router": router,
    }))
}

/// The loop of a model, and what its settings are unless others are given.
fn protocol_json(config: &ModelConfig) -> Result<Value> {
    let eos_token_id = config.eos_token_id.usual();
    let info = PredictorInfo {
        block_size: config.block_size,
        ..PredictorInfo::new(
            config.embedding_rows(),
            config.mask_token_id,
            eos_token_id,
            config.max_sequence_length,
        )
    };
    let protocol = llada::protocol(config);
    let policy = Policy {
        protocol,
        ..Policy::new(info)
    };
    let task = Task::Generate {
        prompt: vec![eos_token_id],
        suffix: Vec::new(),
        constraints: Vec::new(),
    };
    let usual = policy.request(task, false, &Overrides::default())?.config;
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("name", protocol.name().into());
    if protocol != Protocol::Llada && !matches!(usual.process, Process::Editing { .. }) {
        set("steps", usual.steps.into());
    }
    if usual.horizon != Horizon::Canvas {
        set("block_length", usual.block_length.into());
        set("gen_length", usual.gen_length.into());
    }
    match usual.process {
        Process::BlockDiffusion {
            threshold,
            minimal_topk,
        } => {
            set("threshold", number(threshold));
            set("minimal_topk", minimal_topk.into());
        }
        Process::Rewriting {
            threshold,
            editing_threshold,
            max_post_steps,
            delete_token_id,
            split_token_id,
        } => {
            set("threshold", number(threshold));
            set("editing_threshold", number(editing_threshold));
            set("max_post_steps", max_post_steps.into());
            set("delete_token_id", delete_token_id.into());
            set("split_token_id", split_token_id.into());
        }
        Process::Timestep { eps, alg, alg_temp } => {
            set("eps", number(eps));
            set("alg", alg.name().into());
            set("alg_temp", number(alg_temp));
        }
        _ => {}
    }
    Ok(fields.into())
}

/// A number with the digits that it was written with.
fn number(x: f32) -> Value {
    x.to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}
