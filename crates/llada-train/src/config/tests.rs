use std::collections::BTreeSet;

use super::help::{SECTIONS, config_help, sft_config_help};
use super::*;

const LEAST: &str = "[data]\ntrain = [\"a.txt\"]\nsequence_length = 64\n\
                     [train]\nsteps = 100\nbatch_size = 4\n";

fn parse(text: &str) -> Result<TrainConfig> {
    TrainConfig::from_toml(text, Path::new("runs/poems.toml"))
}

/// The text with one more line in section `[train]`, or a replaced one.
#[track_caller]
fn check_error(text: &str, expected: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn help_shows_the_real_defaults() {
    let help = config_help()
        .replace("# train =", "train = [\"a.txt\"]")
        .replace("# sequence_length =", "sequence_length = 64")
        .replace("# steps =", "steps = 100")
        .replace("# batch_size =", "batch_size = 4");
    assert_eq!(parse(&help).unwrap(), parse(LEAST).unwrap());
}

#[test]
fn help_has_every_key() {
    let config = serde_json::to_value(parse(LEAST).unwrap()).unwrap();
    let mut keys = BTreeSet::new();
    for (name, value) in config.as_object().unwrap() {
        match value.as_object() {
            None => {
                keys.insert(name.clone());
            }
            Some(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
        }
    }
    let documented: BTreeSet<String> = SECTIONS
        .iter()
        .flat_map(|(_, keys)| *keys)
        .map(|key| match key.section {
            "" => key.name.to_owned(),
            section => format!("{section}.{}", key.name),
        })
        .collect();
    assert_eq!(keys, documented);
}

#[test]
fn help_of_fine_tuning_shows_the_real_defaults() {
    let least = "[data]\ntrain = [\"a.jsonl\"]\nsequence_length = 64\n[train]\nsteps = 100\n";
    let parse = |text: &str| TrainConfig::sft_from_toml(text, Path::new("sft.toml")).unwrap();
    let help = sft_config_help()
        .replace("# train =", "train = [\"a.jsonl\"]")
        .replace("# sequence_length =", "sequence_length = 64")
        .replace("# steps =", "steps = 100");
    let least = parse(least);
    assert_eq!(parse(&help), least);
    assert!(least.lora.is_none());
    let with_lora = help
        .replace("# [lora]", "[lora]")
        .replace("# rank =", "rank =")
        .replace("# alpha =", "alpha =")
        .replace("# targets =", "targets =");
    assert_eq!(parse(&with_lora).lora, Some(LoraSection::default()));
}

#[test]
fn fine_tuning_defaults_to_the_recipe_of_the_paper() {
    let text = "[data]\ntrain = [\"a.jsonl\"]\nsequence_length = 64\n[train]\nsteps = 1000\n";
    let config = TrainConfig::sft_from_toml(text, Path::new("sft.toml")).unwrap();
    let train = &config.train;
    assert_eq!((train.batch_size, train.weight_decay), (Some(256), 0.1));
    // [[0, 0], [50, 2.5e-5], [900, 2.5e-5], [1000, 2.5e-6]], the first step being number 1.
    for (step, expected) in [
        (24, 1.25e-5),
        (49, 2.5e-5),
        (899, 2.5e-5),
        (949, 1.375e-5),
        (999, 2.5e-6),
    ] {
        let rate = crate::learning_rate(train, step);
        assert!((rate - expected).abs() < 1e-12, "{step}: {rate}");
    }
}

#[test]
fn keys_of_the_other_kind_of_training_are_errors() {
    let check = |lines: &str, expected: &str| {
        let text = format!(
            "[data]\ntrain = [\"a.jsonl\"]\nsequence_length = 64\n{lines}\n\
             [train]\nsteps = 10\nbatch_size = 4\n"
        );
        let error = TrainConfig::sft_from_toml(&text, Path::new("sft.toml")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        "tokenizer = \"char\"",
        "data.tokenizer must be left out in fine-tuning",
    );
    check("packing = \"packed\"", "data.packing must be left out");
    check("[model]\nd_model = 4", "model must be left out");
    check(
        "[sft]\neos_pad_weight = -1.0",
        "sft.eos_pad_weight must be finite",
    );
    check("[sft]\nepochs = 2", "cannot be read");
    check("[lora]\nr = 2", "cannot be read");
    let text = "objective = \"autoregressive\"\n".to_owned() + LEAST;
    let error = TrainConfig::sft_from_toml(&text, Path::new("sft.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("config: objective must be \"diffusion\""),
        "{error}"
    );
    check_error(
        &format!("{LEAST}[lora]\nrank = 4\n"),
        "config: lora must be left out in pre-training, see `llada sft`, got a section",
    );
}

#[test]
fn help_lines_fit_a_terminal() {
    for line in config_help().lines().chain(sft_config_help().lines()) {
        assert!(line.len() <= 100, "{line}");
    }
}

#[test]
fn the_configuration_of_the_design_is_read() {
    let text = "objective = \"diffusion\"\nseed = 7\n[data]\ntrain = [\"text.txt\"]\n\
        tokenizer = \"char\"\nsequence_length = 64\n[model]\nd_model = 64\nn_layers = 2\n\
        [train]\nsteps = 240\nbatch_size = 16\nlearning_rate = 1e-3\nwarmup_steps = 20\n\
        checkpoint_every = 10\n";
    let config = parse(text).unwrap();
    assert_eq!(config.model["d_model"], 64);
    assert_eq!(config.train.learning_rate.to_bits(), 1e-3_f64.to_bits());
    assert_eq!(config.resolve("text.txt"), Path::new("runs/text.txt"));
    assert_eq!(
        config.resolve("/data/text.txt"),
        Path::new("/data/text.txt")
    );
}

#[test]
fn unknown_keys_are_errors() {
    for text in [
        format!("{LEAST}warmup = 3\n"),
        format!("sead = 3\n{LEAST}"),
        LEAST.replace("train = [", "valid = [\"b.txt\"]\ntrain = ["),
    ] {
        let error = parse(&text).unwrap_err();
        let Error::Config { source, .. } = error else {
            panic!("{error}")
        };
        assert!(source.to_string().contains("unknown field"), "{source}");
    }
}

#[test]
fn a_section_that_is_none_is_named() {
    let error = parse("data = 5\n[train]\nsteps = 1\n").unwrap_err();
    let Error::Config { source, .. } = error else {
        panic!("{error}")
    };
    let (line, message) = ("data = 5", "expected struct DataConfig");
    let text = source.to_string();
    assert!(text.contains(line) && text.contains(message), "{text}");
}

#[test]
fn values_out_of_range_are_errors_that_name_the_key() {
    let least = LEAST;
    check_error(
        &least.replace("batch_size = 4", ""),
        "config: train.batch_size must be given, or train.batch_tokens in its place, but not \
         both, got neither",
    );
    check_error(
        &least.replace("batch_size = 4", "batch_tokens = 63"),
        "config: train.batch_tokens must be at least data.sequence_length, got 63",
    );
    check_error(
        &least.replace("steps = 100", "steps = 0"),
        "config: train.steps must be in 1..=4294967295, got 0",
    );
    check_error(
        &least.replace("[\"a.txt\"]", "[]"),
        "config: data.train must be a list with a file, got []",
    );
    check_error(
        &least.replace("[\"a.txt\"]", "[\"a.txt:0.5\", \"b.txt\"]"),
        "config: data.train must be weighted for all files or none, got 1 weights for 2 files",
    );
    check_error(
        &least.replace("[\"a.txt\"]", "[\"a.txt:-1\"]"),
        "config: data.train must be weighted by positive numbers, got -1",
    );
    check_error(
        &format!("{least}learning_rate = 0.0"),
        "config: train.learning_rate must be positive, got 0",
    );
    check_error(
        &format!("{least}learning_rate_points = []"),
        "config: train.learning_rate_points must be a list with a point, got []",
    );
    check_error(
        &format!("{least}learning_rate_points = [[4, 1e-3], [2, 1e-3]]"),
        "config: train.learning_rate_points must be in the order of the steps, got another order",
    );
    check_error(
        &format!("{least}learning_rate_points = [[4, -1]]"),
        "config: train.learning_rate_points must be finite and at least 0, got -1",
    );
    check_error(
        &format!("{least}beta2 = 1.0"),
        "config: train.beta2 must be in [0, 1), got 1",
    );
    check_error(
        &format!("{least}clip_norm = nan"),
        "config: train.clip_norm must be finite and at least 0, got NaN",
    );
}

#[test]
fn only_a_number_after_the_last_colon_is_a_weight() {
    let weighted = |entry| {
        let path = WeightedPath::parse(entry);
        (path.name, path.weight)
    };
    assert_eq!(weighted("a.txt"), ("a.txt".to_owned(), None));
    assert_eq!(weighted("a.txt:0.7"), ("a.txt".to_owned(), Some(0.7)));
    assert_eq!(
        weighted("C:\\poems.txt"),
        ("C:\\poems.txt".to_owned(), None)
    );
    assert_eq!(
        weighted("C:\\poems.txt:2"),
        ("C:\\poems.txt".to_owned(), Some(2.0))
    );
}

#[test]
fn packed_runs_cut_one_batch_in_a_hundred() {
    let config = parse(LEAST).unwrap();
    assert_eq!(
        config.random_length_probability().to_bits(),
        0.01_f64.to_bits()
    );
    let documents = LEAST.replace("[train]", "packing = \"documents\"\n[train]");
    assert_eq!(
        parse(&documents)
            .unwrap()
            .random_length_probability()
            .to_bits(),
        0
    );
}
