//! `llada replay`: a trace as a page of its own, with the view of `llada serve`.

#[path = "../../../llada-serve/src/assets.rs"]
mod assets;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::config::Misuse;

pub(crate) fn run(args: &ReplayArgs) -> Result<()> {
    if args.trace == args.output {
        return Err(Misuse::of("-o: name another file than the trace"));
    }
    let lines = read(&args.trace)?;
    let name = args.trace.file_name().unwrap_or_default();
    let html = page(&name.to_string_lossy(), &lines);
    let output = args.output.display();
    llada_files::write(&args.output, html).with_context(|| format!("writing {output}"))
}

/// What the page needs of a step; the page reads more where there is more.
#[derive(Deserialize)]
struct Step {
    request: usize,
    step: usize,
    #[serde(rename = "steps")]
    _steps: usize,
    revealed: Vec<Revealed>,
    canvas: Vec<u32>,
    #[serde(default)]
    edits: Vec<Edit>,
    /// The block that edits have moved tokens in.
    #[serde(default)]
    window: [usize; 2],
}

#[derive(Deserialize)]
struct Revealed {
    position: usize,
    #[serde(rename = "token")]
    _token: u32,
    /// Null for what fills an answer after its end.
    #[serde(rename = "confidence")]
    _confidence: Option<f32>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Edit {
    Replaced {
        position: usize,
        #[serde(rename = "to")]
        _to: u32,
    },
    Deleted {
        position: usize,
    },
    Inserted {
        position: usize,
    },
}

impl Edit {
    fn position(&self) -> usize {
        match *self {
            Self::Replaced { position, .. }
            | Self::Deleted { position }
            | Self::Inserted { position } => position,
        }
    }
}

/// The steps of a trace, each request's from 0 in order.
fn read(path: &Path) -> Result<Vec<Value>> {
    let name = path.display();
    let text = llada_files::read_text(path).with_context(|| format!("reading {name}"))?;
    // Steps that were read of each request, and the length of its canvas.
    let mut requests: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("{name}, line {}", number + 1);
        let step: Step = serde_json::from_str(line)
            .with_context(|| format!("{place}: expected a step of --trace FILE.jsonl"))?;
        let length = step.canvas.len();
        let (due, expected) = requests.entry(step.request).or_insert((0, length));
        if step.step != *due {
            let (request, step) = (step.request, step.step);
            bail!(
                "{place}: step {step} of request {request} came where step {due} was due; give a \
                 trace as --trace has written it"
            );
        }
        ensure!(
            length == *expected,
            "{place}: the canvas has {length} tokens, and {expected} in the step before"
        );
        if let Some(Revealed { position, .. }) =
            step.revealed.iter().find(|token| token.position >= length)
        {
            bail!("{place}: position {position} is outside the canvas of {length} tokens");
        }
        let [start, end] = step.window;
        let mut edited = step.edits.iter().map(Edit::position);
        if let Some(position) = edited.find(|at| !(start..end.min(length)).contains(at)) {
            bail!(
                "{place}: the edit at position {position} is outside its block, {start} to {end}"
            );
        }
        ensure!(
            end <= length,
            "{place}: the block of its edits ends at {end}, outside the canvas of {length} tokens"
        );
        *due += 1;
        lines.push(serde_json::from_str(line)?);
    }
    ensure!(!lines.is_empty(), "{name} holds no steps");
    Ok(lines)
}

/// The page of the server, with its parts and the trace in it, so that it opens from anywhere and
/// asks for nothing.
fn page(name: &str, lines: &[Value]) -> String {
    let data = json!({ "name": name, "lines": lines }).to_string();
    // Within a script nothing may look like its end; in JSON, these stand in strings only.
    let data = data
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    let of_page = |wanted: &str| {
        let found = assets::FILES.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, content)| content)
    };
    let mut html = String::new();
    for line in of_page("index.html").lines() {
        match line {
            ICON => html.push_str(POLICY),
            STYLE => html.extend(["<style>\n", of_page("style.css"), "</style>"]),
            SCRIPT => html.extend([
                "<script type=\"application/json\" id=\"trace\">",
                &data,
                "</script>\n<script type=\"module\">\n",
                &one_module(),
                "</script>",
            ]),
            line => html.push_str(line),
        }
        html.push('\n');
    }
    html
}

/// Lines of the page that name its parts.
const ICON: &str = "<link rel=\"icon\" href=\"/page/icon.svg\">";
const STYLE: &str = "<link rel=\"stylesheet\" href=\"/page/style.css\">";
const SCRIPT: &str = "<script type=\"module\" src=\"/page/app.js\"></script>";
/// The browser keeps the page from asking for anything.
const POLICY: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
                      style-src 'unsafe-inline'; script-src 'unsafe-inline'\">";

/// The modules in one: a file that is opened from a disk can't import others. Each is on the list
/// after what it imports, and their names are distinct.
fn one_module() -> String {
    let modules = assets::FILES.iter();
    let modules = modules.filter(|(name, _)| Path::new(name).extension() == Some("js".as_ref()));
    let lines = modules.flat_map(|(_, content)| content.lines());
    let lines = lines.filter(|line| !line.starts_with("import "));
    let mut module = String::new();
    for line in lines {
        module.push_str(line.strip_prefix("export ").unwrap_or(line));
        module.push('\n');
    }
    module
}

#[cfg(test)]
mod tests {
    //! Tests of the page that is made of the server's.

    use super::*;

    #[test]
    fn every_file_of_the_page_is_in_the_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llada-serve/page");
        let files = std::fs::read_dir(folder).expect("the folder of the page");
        let mut files: Vec<_> = files
            .map(|file| {
                file.expect("a file")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        let mut listed: Vec<_> = assets::FILES.iter().map(|(name, _)| *name).collect();
        files.sort();
        listed.sort_unstable();
        assert_eq!(files, listed);
    }

    #[test]
    fn a_module_comes_after_those_that_it_imports() {
        let mut seen = Vec::new();
        for (name, content) in assets::FILES {
            for line in content.lines().filter(|line| line.starts_with("import ")) {
                let from = line
                    .split('"')
                    .nth(1)
                    .and_then(|path| path.strip_prefix("./"));
                let from = from.expect("an import of one line, from a sibling");
                assert!(seen.contains(&from), "{name} imports {from}");
            }
            seen.push(name);
        }
    }

    #[test]
    fn the_modules_have_no_name_twice() {
        let module = one_module();
        let mut names = std::collections::BTreeSet::new();
        for line in module.lines() {
            let line = line.strip_prefix("async ").unwrap_or(line);
            let kinds = ["function ", "function* ", "const ", "let ", "class "];
            let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) else {
                continue;
            };
            let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let name = rest.split(|c| !is_of_name(c)).next().unwrap_or_default();
            assert!(names.insert(name), "{name}");
        }
        assert!(names.contains("Run") && names.contains("events"));
    }

    #[test]
    fn the_page_names_no_other_file_and_ends_no_script_early() {
        let line = json!({ "text": "</script><!-- \u{2028}\u{2029}" });
        let page = page("a</script>.jsonl", &[line]);
        for part in [
            "/page/",
            "import {",
            "\nexport ",
            "<!--",
            "\u{2028}",
            "\u{2029}",
        ] {
            assert!(!page.contains(part), "{part:?}");
        }
        assert_eq!(page.matches("</script>").count(), 2);
        let data = page.split("id=\"trace\">").nth(1);
        let data = data.and_then(|rest| rest.split("</script>").next());
        let data: Value = serde_json::from_str(data.expect("the trace")).expect("JSON");
        assert_eq!(data["name"], "a</script>.jsonl");
        assert_eq!(data["lines"][0]["text"], "</script><!-- \u{2028}\u{2029}");
    }
}
