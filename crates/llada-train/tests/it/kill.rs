//! A run that is killed again and again ends with the same bits as one that was left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::thread::sleep;
use std::time::Duration;

use llada_tensor::{Philox, Stream};
use llada_train::TrainConfig;

use crate::toy::{config, run_until, write_texts};

const FOLDER: &str = "LLADA_TRAIN_TEST_FOLDER";
const STEPS: u64 = 200;
const KILLS: u32 = 20;

fn run_config(folder: &Path) -> TrainConfig {
    let lines = format!("steps = {STEPS}\nbatch_size = 3\ncheckpoint_every = 1\nlog_every = 1");
    config(folder, "diffusion", &lines)
}

/// The process that is killed: does nothing unless the test below starts it.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    run_until(&run_config(&folder), &folder.join("killed"), u64::MAX).unwrap();
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The latest step of which a checkpoint is begun or there.
fn latest_step(state: &Path) -> u64 {
    let entries = fs::read_dir(state).into_iter().flatten();
    let step = |entry: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("step-")?
            .trim_end_matches(".tmp")
            .parse()
            .ok()
    };
    entries.filter_map(step).max().unwrap_or(0)
}

/// Kills the process a moment after it has begun the checkpoint of a step.
fn kill_at(child: &mut Child, state: &Path, step: u64, moment: Duration) {
    while latest_step(state) < step {
        assert!(
            child.try_wait().unwrap().is_none(),
            "faster than its killer"
        );
        std::thread::yield_now();
    }
    sleep(moment);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "faster than its killer");
}

#[test]
fn killed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let state = folder.path().join("killed/state");
    // Steps and moments are drawn; what the process does just then is up to the machine.
    let philox = Philox::new(20, Stream::Init);
    for kill in 0..KILLS {
        let step = latest_step(&state) + 1 + philox.below(4, [kill, 0, 0]);
        let moment = Duration::from_micros(philox.below(3000, [kill, 1, 0]));
        kill_at(&mut start(folder.path()), &state, step, moment);
    }
    assert!(start(folder.path()).wait().unwrap().success());

    let straight = folder.path().join("straight");
    run_until(&run_config(folder.path()), &straight, u64::MAX).unwrap();
    for name in ["parameters", "first_moments", "second_moments"] {
        let name = format!("state/step-{STEPS}/{name}.safetensors");
        let [a, b] = [folder.path().join("killed"), straight.clone()]
            .map(|run| fs::read(run.join(&name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}
