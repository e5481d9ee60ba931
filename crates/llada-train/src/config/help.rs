//! The documentation of the configuration, from its keys.

use std::fmt::Write;

use super::keys::Key;
use super::sft::{OTHER_KEYS, UNUSED_KEYS};
use super::{DataConfig, LoraSection, OptimizationConfig, SftConfig, TOP_KEYS};

/// The keys of pre-training in the order of the help text, in sections.
pub(crate) const SECTIONS: [(&str, &[Key]); 4] = [
    ("", TOP_KEYS),
    ("data", DataConfig::KEYS),
    ("model", &[]),
    ("train", OptimizationConfig::KEYS),
];

/// Every key of a training configuration with its default, as a commented TOML file.
#[must_use]
pub fn config_help() -> String {
    let mut help = String::from(
        "# A training configuration. Unknown keys are errors; paths are relative to this file.\n",
    );
    for (section, keys) in SECTIONS {
        write_section(&mut help, section);
        if section == "model" {
            help.push_str("# Fields of config.json (d_model, n_layers, n_heads, ...), or preset = \"NAME\".\n");
        }
        keys.iter().for_each(|key| write_key(&mut help, key));
    }
    help
}

/// The same of a configuration of fine-tuning; its section `[lora]` is commented out.
#[must_use]
pub fn sft_config_help() -> String {
    let mut help = String::from(
        "# A configuration of fine-tuning. Unknown keys are errors; paths are relative to this file.\n",
    );
    let [top, data, _, train] = SECTIONS;
    for (section, keys) in [top, data, ("sft", SftConfig::KEYS), train] {
        write_section(&mut help, section);
        let is_used = |key: &&Key| !UNUSED_KEYS.contains(&&*format!("{section}.{}", key.name));
        for key in keys.iter().filter(is_used) {
            let is_this = |other: &&Key| other.section == section && other.name == key.name;
            let other = OTHER_KEYS.iter().find(is_this);
            write_key(&mut help, other.unwrap_or(key));
        }
    }
    help.push_str(
        "\n# With this section adapters are trained in place of all parameters (LoRA).\n# [lora]\n",
    );
    for key in LoraSection::KEYS {
        let mut of_key = String::new();
        write_key(&mut of_key, key);
        for line in of_key.lines() {
            let comment = if line.starts_with('#') { "" } else { "# " };
            let _ = writeln!(help, "{comment}{line}");
        }
    }
    help
}

fn write_section(help: &mut String, section: &str) {
    if !section.is_empty() {
        let _ = write!(help, "\n[{section}]\n");
    }
}

fn write_key(help: &mut String, key: &Key) {
    let mut line = String::from("#");
    for word in key.help.split(' ') {
        if line.len() + 1 + word.len() > 96 {
            let _ = writeln!(help, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(help, "{line}");
    let _ = match key.default {
        "" => writeln!(help, "# {} =", key.name),
        default => writeln!(help, "{} = {default}", key.name),
    };
}
