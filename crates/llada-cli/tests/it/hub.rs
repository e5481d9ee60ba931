//! `--model ORG/NAME[@REV]`, against a server on loopback that has its moods.

mod broken;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use assert_cmd::Command;
use tempfile::TempDir;

use crate::{fails, llada, model};
use server::{COMMIT, Hub, Reply, Request, etag};

const WEIGHTS: &str = "model.safetensors";
const TEMPLATE: &str = r#"{"chat_template": "春{{ messages[0].content }}"}"#;

/// The files of the repo; those after the first four are none of ours.
fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let dir = model();
    let read = |name| fs::read(dir.path().join(name)).expect("a file of the model");
    let mut files: BTreeMap<_, _> = ["config.json", "tokenizer.json", WEIGHTS]
        .map(|name| (name, read(name)))
        .into();
    files.insert("tokenizer_config.json", TEMPLATE.into());
    for other in ["README.md", "pytorch_model.bin", "original/config.json"] {
        files.insert(other, b"not needed".to_vec());
    }
    files
}

fn honest() -> Hub {
    Hub::start(files(), |_, reply| reply)
}

fn cache() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A command that sees no variables of the one who runs the tests.
fn run(endpoint: &str, cache: &Path, args: &[&str]) -> Command {
    let mut command = llada(args);
    for name in [
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
    ] {
        command.env_remove(name);
    }
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", cache)
        .env("LLADA_HUB_BACKOFF_MS", "0");
    command
}

fn infill(hub: &Hub, cache: &TempDir, model: &str) -> Command {
    run(
        &hub.url(),
        cache.path(),
        &["infill", "春□", "--model", model],
    )
}

/// What the command prints.
#[track_caller]
fn works(mut command: Command) -> String {
    let run = command.assert().success();
    let text = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    assert!(text.starts_with('春'), "{text}");
    text
}

fn repo(cache: &TempDir) -> std::path::PathBuf {
    cache.path().join("hub/models--org--name")
}

fn partial(cache: &TempDir, name: &str) -> std::path::PathBuf {
    let etag = etag(name, &files()[name]);
    repo(cache).join(format!("blobs/{etag}.incomplete"))
}

/// The paths of the requests for files, without those that only ask what a file is.
fn downloads(hub: &Hub) -> Vec<Request> {
    let log = [hub.log(), hub.cdn_log()].concat();
    let is_download = |request: &Request| request.sent > 0 && !request.path.starts_with("/api/");
    log.into_iter().filter(is_download).collect()
}

#[test]
fn a_model_is_downloaded_once() {
    let (hub, cache) = (honest(), cache());
    let first = works(infill(&hub, &cache, "org/name"));
    let mut paths: Vec<_> = downloads(&hub).into_iter().map(|seen| seen.path).collect();
    let resolve = |name| format!("/org/name/resolve/{COMMIT}/{name}");
    let mut expected = [
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    .map(resolve)
    .to_vec();
    expected.push(format!("/cdn/{WEIGHTS}"));
    paths.sort();
    expected.sort();
    assert_eq!(paths, expected);

    let before = hub.log().len();
    assert_eq!(works(infill(&hub, &cache, "org/name")), first);
    let after: Vec<_> = hub.log()[before..]
        .iter()
        .map(|seen| seen.path.clone())
        .collect();
    assert_eq!(after, ["/api/models/org/name/revision/main"]);

    // Other commands, and other names of the same commit.
    let inspect = ["inspect", "org/name@v1.0", "--format", "json"];
    run(&hub.url(), cache.path(), &inspect).assert().success();
    works(infill(&hub, &cache, &format!("org/name@{COMMIT}")));
    works(infill(&hub, &cache, "org/name@refs/pr/1"));
    let chat = [
        "generate",
        "夏",
        "--chat",
        "--gen-length",
        "1",
        "--model",
        "org/name",
    ];
    run(&hub.url(), cache.path(), &chat).assert().success();
    assert_eq!(downloads(&hub).len(), expected.len());
}

#[test]
#[cfg(unix)]
fn the_cache_has_the_layout_of_huggingface_hub() {
    let (hub, cache) = (honest(), cache());
    works(infill(&hub, &cache, "org/name@v1.0"));
    let repo = repo(&cache);
    let reference = fs::read_to_string(repo.join("refs/v1.0"));
    assert_eq!(reference.expect("a reference"), COMMIT);
    let snapshot = repo.join("snapshots").join(COMMIT);
    for (name, bytes) in files().iter().filter(|(_, bytes)| *bytes != b"not needed") {
        let target = fs::read_link(snapshot.join(name)).expect("a link");
        let etag = etag(name, bytes);
        assert_eq!(target, Path::new("../../blobs").join(&etag));
        assert_eq!(
            fs::read(repo.join("blobs").join(etag)).expect("a blob"),
            *bytes
        );
    }
    let count = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(count(&repo.join("blobs")), 4);
    assert_eq!(count(&snapshot), 4);
}

#[test]
fn two_processes_download_a_file_once() {
    let (hub, cache) = (honest(), cache());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| works(infill(&hub, &cache, "org/name")));
        }
    });
    let gets = |file| {
        downloads(&hub)
            .iter()
            .filter(|seen| seen.gets(file))
            .count()
    };
    assert_eq!(gets("config.json"), 1);
    assert_eq!(hub.cdn_log().len(), 1);
}

#[test]
fn refusals_say_what_to_do() {
    let answering = |status: u16| Hub::start(files(), move |_, _| Reply::new(status, "no"));
    for status in [401, 403] {
        let (hub, cache) = (answering(status), cache());
        let parts = ["gated or private", "HF_TOKEN", &status.to_string()];
        fails(&mut infill(&hub, &cache, "org/name"), 1, &parts);
        let mut command = infill(&hub, &cache, "org/name");
        fails(
            command.env("HF_TOKEN", "hf_old"),
            1,
            &["HF_TOKEN", "conditions"],
        );
    }
    let both = ["no folder", "repo or its revision does not exist", "404"];
    fails(&mut infill(&honest(), &cache(), "org/other"), 1, &both);
    fails(&mut infill(&honest(), &cache(), "org/name@v2.0"), 1, &both);
    let parts = ["no folder", "500", "not in the cache"];
    fails(
        &mut infill(&answering(500), &cache(), "org/name"),
        1,
        &parts,
    );
    let parts = ["does not answer as a Hub"];
    fails(
        &mut infill(&answering(200), &cache(), "org/name"),
        1,
        &parts,
    );
}

#[test]
fn offline_only_the_cache_counts() {
    let (hub, cache) = (honest(), cache());
    let offline = |model: &str| {
        let mut command = infill(&hub, &cache, model);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    let parts = ["HF_HUB_OFFLINE", "org/name", "revision main", "no folder"];
    fails(&mut offline("org/name"), 1, &parts);
    assert!(hub.log().is_empty());
    works(infill(&hub, &cache, "org/name"));
    let before = hub.log().len();
    works(offline("org/name"));
    works(offline(&format!("org/name@{COMMIT}")));
    fails(&mut offline("org/name@v1.0"), 1, &["revision v1.0"]);
    fs::remove_file(repo(&cache).join("snapshots").join(COMMIT).join(WEIGHTS)).expect("a file");
    fails(
        &mut offline("org/name"),
        1,
        &["HF_HUB_OFFLINE", "lacks model.safetensors"],
    );
    assert_eq!(hub.log().len(), before);

    // The blob is still there: nothing to download but the answer what the file is.
    let downloaded = downloads(&hub).len();
    works(infill(&hub, &cache, "org/name"));
    assert_eq!(downloads(&hub).len(), downloaded);
}

#[test]
fn without_a_network_the_cache_is_used_with_a_warning() {
    let (hub, cache) = (honest(), cache());
    works(infill(&hub, &cache, "org/name"));
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = format!("http://{}", port.local_addr().expect("an address"));
    drop(port);
    let args = ["infill", "春□", "--model", "org/name"];
    let down = run(&closed, cache.path(), &args).assert().success();
    let message = String::from_utf8_lossy(&down.get_output().stderr).into_owned();
    for part in ["warning: ", &closed, "from the cache"] {
        assert!(message.contains(part), "{message}");
    }
    let parts = [
        "no folder",
        &closed,
        "cannot be reached",
        "not in the cache",
    ];
    let args = ["infill", "春□", "--model", "org/other"];
    fails(&mut run(&closed, cache.path(), &args), 1, &parts);
}

#[test]
fn hostile_names_are_refused() {
    for name in [
        "../../x.safetensors",
        "/tmp/x.safetensors",
        "a/../../../config.json",
    ] {
        let mut files = files();
        files.insert(name, Vec::new());
        let (hub, cache) = (Hub::start(files, |_, reply| reply), cache());
        fails(
            &mut infill(&hub, &cache, "org/name"),
            1,
            &["leads out", name],
        );
        assert!(downloads(&hub).is_empty());
        assert_eq!(fs::read_dir(cache.path()).expect("a folder").count(), 0);
    }
    let hub = Hub::start(files(), |_, reply| {
        let body = String::from_utf8_lossy(&reply.body).replace(COMMIT, "../../../x");
        Reply::new(reply.status, body)
    });
    fails(
        &mut infill(&hub, &cache(), "org/name"),
        1,
        &["is no commit"],
    );
    let other = COMMIT.replace('0', "f");
    let hub = Hub::start(files(), |_, reply| {
        let body = String::from_utf8_lossy(&reply.body).replace(COMMIT, &COMMIT.replace('0', "f"));
        Reply::new(reply.status, body)
    });
    let model = format!("org/name@{COMMIT}");
    let parts = [other.as_str(), "not the one"];
    fails(&mut infill(&hub, &cache(), &model), 1, &parts);
}

#[test]
fn the_token_goes_to_the_endpoint_alone() {
    let (hub, cache) = (honest(), cache());
    let mut command = infill(&hub, &cache, "org/name");
    command.env("HF_TOKEN", "hf_secret");
    works(command);
    let token = |seen: &Request| seen.header("authorization") == Some("Bearer hf_secret");
    assert!(hub.log().iter().all(token));
    assert!(!hub.cdn_log().is_empty());
    assert!(
        hub.cdn_log()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );

    // The token that was stored by a login.
    fs::remove_dir_all(cache.path().join("hub")).expect("a folder");
    fs::write(cache.path().join("token"), "hf_secret\n").expect("a writable folder");
    let before = hub.log().len();
    works(infill(&hub, &cache, "org/name"));
    assert!(hub.log()[before..].iter().all(token));

    let mut command = infill(&hub, &cache, "org/name");
    fails(
        command.env("HF_TOKEN", "a\nb"),
        1,
        &["HF_TOKEN", "odd characters"],
    );
}

#[test]
fn redirects_at_the_endpoint_are_followed() {
    let hub = Hub::start(files(), |request, reply| {
        let moved = request.path.strip_prefix("/org/old/resolve/");
        if let Some(rest) = moved {
            return Reply::new(307, "").with("Location", format!("/org/name/resolve/{rest}"));
        }
        if request.path == "/api/models/org/old/revision/main" {
            return Reply::new(307, "").with("Location", "/api/models/org/name/revision/main");
        }
        if request.path.starts_with("/api/models/org/circle") {
            return Reply::new(307, "").with("Location", &request.path);
        }
        reply
    });
    works(infill(&hub, &cache(), "org/old"));
    fails(
        &mut infill(&hub, &cache(), "org/circle"),
        1,
        &["in circles"],
    );
}

#[test]
#[cfg(unix)]
fn a_cache_that_python_made_is_found() {
    let (hub, cache) = (honest(), cache());
    let (repo, snapshot) = (repo(&cache), repo(&cache).join("snapshots").join(COMMIT));
    for folder in [repo.join("refs"), repo.join("blobs"), snapshot.clone()] {
        fs::create_dir_all(folder).expect("a writable folder");
    }
    fs::write(repo.join("refs/main"), COMMIT).expect("a writable folder");
    for (name, bytes) in files().iter().filter(|(name, _)| !name.contains('/')) {
        let etag = etag(name, bytes);
        fs::write(repo.join("blobs").join(&etag), bytes).expect("a writable folder");
        let target = Path::new("../../blobs").join(etag);
        std::os::unix::fs::symlink(target, snapshot.join(name)).expect("a link");
    }
    works(infill(&hub, &cache, "org/name"));
    assert!(downloads(&hub).is_empty());
    let mut command = infill(&hub, &cache, "org/name");
    command.env("HF_HUB_OFFLINE", "yes");
    works(command);
}

#[test]
fn a_folder_with_the_name_of_a_repo_goes_first() {
    let (hub, cache) = (honest(), cache());
    let here = tempfile::tempdir().expect("a temporary folder");
    let dir = here.path().join("org/name");
    fs::create_dir_all(&dir).expect("a writable folder");
    for (name, bytes) in files().iter().filter(|(name, _)| !name.contains('/')) {
        fs::write(dir.join(name), bytes).expect("a writable folder");
    }
    let mut command = infill(&hub, &cache, "org/name");
    command.current_dir(here.path());
    works(command);
    assert!(hub.log().is_empty());
}

#[test]
fn an_adapter_is_downloaded_and_its_base_is_found() {
    let (base, out, cache) = (model(), cache(), cache());
    let run_dir = out.path().join("run");
    crate::adapters::tuned(base.path(), &run_dir, &[]);
    let names = ["adapter_config.json", "adapter_model.safetensors"];
    let read = |name| {
        (
            name,
            fs::read(run_dir.join("adapter").join(name)).expect("written"),
        )
    };
    let hub = Hub::start(names.map(read).into(), |_, reply| reply);
    let base = base.path().to_str().expect("a plain name");
    let local = run_dir.join("adapter");
    let score = |flags: &[&str], is_offline: bool| {
        let args = ["score", "--target", "秋冬", "--mc-samples", "4"];
        let mut command = run(&hub.url(), cache.path(), &[&args, flags].concat());
        command.env("HF_HUB_OFFLINE", if is_offline { "1" } else { "0" });
        command.assert().success().get_output().stdout.clone()
    };
    let local = local.to_str().expect("a plain name");
    let expected = score(&["--model", base, "--adapter", local], true);
    assert_eq!(
        score(&["--model", base, "--adapter", "org/name"], false),
        expected
    );
    // The base in its configuration is a folder here.
    assert_eq!(score(&["--model", "org/name"], false), expected);
    assert_eq!(
        score(&["--model", base, "--adapter", "org/name"], true),
        expected
    );
}
