//! A small set of instructions, made from the poems: acrostics, and the line before or after.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::clean::{ends_clause, regular_couplets};
use super::split::fnv1a;

/// Of so many poems one is used for training.
const SHARE: u64 = 3;
/// Couplets of an acrostic at most.
const MAX_COUPLETS: u64 = 4;

/// A prompt and its answer.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    prompt: String,
    completion: String,
}

/// Writes `train.jsonl` from the training poems, `heldout.jsonl` from the held-out ones, and
/// `famous.jsonl` from the famous ones, of which none is trained on here, into the folder
/// `instructions`; returns their numbers of pairs.
///
/// `poems` is what `cargo xtask data poems` made.
pub(crate) fn prepare(poems: &Path, instructions: &Path) -> anyhow::Result<Value> {
    fs::create_dir_all(instructions)?;
    let mut report = serde_json::Map::new();
    for (from, to, share) in [
        ("train.txt", "train.jsonl", SHARE),
        ("heldout.txt", "heldout.jsonl", 1),
        ("famous.txt", "famous.jsonl", 1),
    ] {
        let path = poems.join(from);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "reading {}: run `cargo xtask data poems` first",
                path.display()
            )
        })?;
        let used = text
            .lines()
            .filter(|poem| draw(poem, "poem").is_multiple_of(share));
        let lines: Vec<String> = used
            .flat_map(pairs)
            .map(|Pair { prompt, completion }| {
                json!({ "prompt": prompt, "completion": completion }).to_string() + "\n"
            })
            .collect();
        let path = instructions.join(to);
        fs::write(&path, lines.concat()).with_context(|| format!("writing {}", path.display()))?;
        report.insert(to.to_owned(), lines.len().into());
    }
    Ok(report.into())
}

/// Three pairs of a poem in couplets of five or of seven characters a line; none of another.
fn pairs(poem: &str) -> Vec<Pair> {
    let couplets = regular_couplets(poem);
    let verses: Vec<&str> = couplets
        .iter()
        .flat_map(|couplet| couplet.split_inclusive(ends_clause))
        .collect();
    let form = match verses.first().map(|verse| verse.chars().count()) {
        Some(6) => "五言",
        Some(8) => "七言",
        _ => return Vec::new(),
    };
    let n = couplets.len() as u64;
    let n_verses = 2 * usize::try_from(draw(poem, "length") % n.min(MAX_COUPLETS) + 1)
        .expect("at most four couplets");
    let heads: String = verses[..n_verses]
        .iter()
        .filter_map(|v| v.chars().next())
        .collect();
    let couplet = |purpose| {
        let at = usize::try_from(draw(poem, purpose) % n).expect("a poem fits in memory");
        [verses[2 * at], verses[2 * at + 1]]
    };
    let ([before, given], [first, after]) = (couplet("before"), couplet("after"));
    let pair = |prompt: String, completion: &str| Pair {
        prompt,
        completion: completion.to_owned(),
    };
    vec![
        pair(
            format!("{form}藏头：{heads}。"),
            &verses[..n_verses].concat(),
        ),
        pair(format!("上句：{given}"), before),
        pair(format!("下句：{first}"), after),
    ]
}

/// A number that is a function of the poem and of what it is for.
fn draw(poem: &str, purpose: &str) -> u64 {
    // The low bits of FNV-1a depend on few bits of the text.
    fnv1a(format!("{purpose}{poem}").as_bytes()) >> 32
}

#[cfg(test)]
mod tests;
