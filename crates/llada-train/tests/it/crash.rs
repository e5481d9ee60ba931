//! Whatever a crash or a full disk leaves behind, the newest whole checkpoint is found.

use std::fs;
use std::path::{Path, PathBuf};

use llada_train::{Error, RunFolder};

use crate::toy::{config, run_until, write_texts};

const NEVER: u64 = u64::MAX;
const LINES: &str = "steps = 12\nbatch_size = 3\ncheckpoint_every = 4\nlog_every = 1";

/// A run of 12 steps that was stopped at step 10, with checkpoints 8 and 10.
struct Stopped {
    folder: tempfile::TempDir,
}

impl Stopped {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_texts(folder.path());
        let stopped = Self { folder };
        run_until(&stopped.config(), &stopped.run(), 10).unwrap();
        stopped
    }

    fn config(&self) -> llada_train::TrainConfig {
        config(self.folder.path(), "diffusion", LINES)
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.run().join(format!("state/step-{step}"))
    }

    /// Goes on, and compares the end with that of a run that met no accident.
    #[track_caller]
    fn check_resumes_from(&self, step: u64) {
        let (model, summary, _) = run_until(&self.config(), &self.run(), NEVER).unwrap();
        assert_eq!(summary.resumed_from, Some(step));
        let straight = self.folder.path().join("straight");
        let (expected, ..) = run_until(&self.config(), &straight, NEVER).unwrap();
        assert_eq!(model.bits(), expected.bits());
        for name in ["model.safetensors", "metrics.jsonl"] {
            let [a, b] = [&self.run(), &straight].map(|run| fs::read(run.join(name)).unwrap());
            // The clock stands still while a run is stopped, so that its seconds agree as well.
            assert!(
                a == b || (name == "metrics.jsonl" && step < 10),
                "{name} differs"
            );
        }
        let steps = fs::read_to_string(self.run().join("metrics.jsonl")).unwrap();
        assert_eq!(steps.lines().count(), 12, "each step has one line");
    }
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_stopped_run_goes_on() {
    Stopped::new().check_resumes_from(10);
}

#[test]
fn an_unfinished_checkpoint_is_ignored() {
    let stopped = Stopped::new();
    let unfinished = stopped.run().join("state/step-12.tmp");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("parameters.safetensors"), b"half").unwrap();
    stopped.check_resumes_from(10);
    assert!(
        !unfinished.exists(),
        "the next checkpoint of that step takes its place"
    );
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    for name in [
        "parameters.safetensors",
        "second_moments.safetensors",
        "state.json",
    ] {
        let stopped = Stopped::new();
        cut(&stopped.checkpoint(10).join(name));
        stopped.check_resumes_from(8);
    }
    for name in ["parameters.safetensors", "first_moments.safetensors"] {
        let stopped = Stopped::new();
        flip(&stopped.checkpoint(10).join(name));
        stopped.check_resumes_from(8);
    }
    let stopped = Stopped::new();
    fs::remove_file(stopped.checkpoint(10).join("second_moments.safetensors")).unwrap();
    stopped.check_resumes_from(8);
}

#[test]
fn lines_of_metrics_after_the_checkpoint_are_dropped() {
    let stopped = Stopped::new();
    let path = stopped.run().join("metrics.jsonl");
    let mut text = fs::read_to_string(&path).unwrap();
    let last = text
        .lines()
        .last()
        .unwrap()
        .replace("\"step\":10", "\"step\":11");
    text.push_str(&last);
    text.push_str("\n{\"step\":12,\"lo");
    fs::write(&path, text).unwrap();
    stopped.check_resumes_from(10);
}

#[test]
fn without_a_whole_checkpoint_nothing_begins_anew() {
    let stopped = Stopped::new();
    for step in [8, 10] {
        cut(&stopped.checkpoint(step).join("parameters.safetensors"));
    }
    let error = run_until(&stopped.config(), &stopped.run(), NEVER).unwrap_err();
    let Error::NoWholeCheckpoint { reason, .. } = error else {
        panic!("{error}")
    };
    assert!(
        reason.ends_with("step-10/parameters.safetensors is truncated or damaged"),
        "{reason}"
    );
}

#[test]
fn as_many_checkpoints_stay_as_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    for (keep, expected) in [(1, vec!["step-12"]), (2, vec!["step-12", "step-9"])] {
        let lines =
            format!("steps = 12\nbatch_size = 3\ncheckpoint_every = 3\nkeep_checkpoints = {keep}");
        let run = folder.path().join(format!("keep-{keep}"));
        run_until(&config(folder.path(), "diffusion", &lines), &run, NEVER).unwrap();
        let entries = fs::read_dir(run.join("state")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != "lock");
        names.sort();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_file_in_place_of_the_run_folder_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let config = config(folder.path(), "diffusion", LINES);
    let run = folder.path().join("run");
    fs::write(&run, b"not a folder").unwrap();
    let error = run_until(&config, &run, NEVER).unwrap_err();
    let path = run.join("state");
    assert_eq!(
        error.to_string(),
        format!("creating {} failed", path.display())
    );
}

#[test]
fn a_failing_checkpoint_leaves_the_one_before() {
    let stopped = Stopped::new();
    // Nothing can be written to a checkpoint whose temporary name is a file.
    let blocked = stopped.run().join("state/step-12.tmp");
    fs::write(&blocked, b"").unwrap();
    let error = run_until(&stopped.config(), &stopped.run(), NEVER).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("removing {} failed", blocked.display())
    );
    fs::remove_file(&blocked).unwrap();
    stopped.check_resumes_from(10);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_error_and_the_old_model_stays() {
    let stopped = Stopped::new();
    let model = stopped.run().join("model.safetensors");
    let before = fs::read(&model).unwrap();
    let temporary = stopped.run().join(".llada-tmp-model.safetensors");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let error = run_until(&stopped.config(), &stopped.run(), NEVER).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("writing {} failed", model.display())
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("No space left on device"), "{source}");
    assert_eq!(fs::read(&model).unwrap(), before);
    stopped.check_resumes_from(12);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let stopped = Stopped::new();
    let first = RunFolder::open(&stopped.run()).unwrap();
    let error = run_until(&stopped.config(), &stopped.run(), NEVER).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(first);
    stopped.check_resumes_from(10);
}

/// A process that was killed may take a moment to end.
#[test]
fn a_run_folder_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let ends = RunFolder::open(dir.path()).unwrap();
    let end = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(ends);
    });
    assert!(RunFolder::open(dir.path()).is_ok());
    end.join().unwrap();
}

#[test]
fn a_model_that_no_run_made_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    write_texts(folder.path());
    let run = folder.path().join("published");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("model.safetensors"), b"precious").unwrap();
    let config = config(folder.path(), "diffusion", LINES);
    let error = run_until(&config, &run, NEVER).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    assert_eq!(fs::read_dir(&run).unwrap().count(), 1, "nothing was added");
}
