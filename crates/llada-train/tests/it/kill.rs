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
/// More than a process takes before it is killed.
const MANY_STEPS: u64 = 1_000_000;
const KILLS: u32 = 20;

/// The learning rate does not depend on how long the run is.
fn run_config(folder: &Path, steps: u64, checkpoint_every: u64) -> TrainConfig {
    let lines = format!(
        "steps = {steps}\nbatch_size = 3\ncheckpoint_every = {checkpoint_every}\nlog_every = 1\n\
         decay_steps = 0\neval_sequences = 1"
    );
    config(folder, "diffusion", &lines)
}

/// The process that is killed: does nothing unless the test below starts it.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let config = run_config(&folder, MANY_STEPS, 1);
    run_until(&config, &folder.join("killed"), u64::MAX).unwrap();
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
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    sleep(moment);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn killed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let state = folder.path().join("killed/state");
    // Steps and moments are drawn; what the process does just then is up to the machine.
    let philox = Philox::new(20, Stream::Init);
    for kill in 0..KILLS {
        let step = latest_step(&state) + 1 + philox.below(3, [kill, 0, 0]);
        let moment = Duration::from_micros(philox.below(3000, [kill, 1, 0]));
        kill_at(&mut start(folder.path()), &state, step, moment);
    }
    let steps = latest_step(&state) + 3;
    let killed = folder.path().join("killed");
    let config = run_config(folder.path(), steps, 1);
    let (_, summary, _) = run_until(&config, &killed, u64::MAX).unwrap();
    assert!(summary.resumed_from.unwrap() + 1 >= u64::from(KILLS));

    let straight = folder.path().join("straight");
    let config = run_config(folder.path(), steps, 0);
    run_until(&config, &straight, u64::MAX).unwrap();
    for name in ["parameters", "first_moments", "second_moments"] {
        let name = format!("state/step-{steps}/{name}.safetensors");
        let [a, b] = [&killed, &straight].map(|run| fs::read(run.join(&name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}
