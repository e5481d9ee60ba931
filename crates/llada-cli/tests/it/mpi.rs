//! `mpirun -n N llada`: the bits of one process, and one end for all.

mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Writes a text and a configuration with more lines for its section `[train]`.
fn config(dir: &Path, train_lines: &str) -> PathBuf {
    let line = "春风花月，秋水山天。夏雨冬雪。\n";
    fs::write(dir.join("text.txt"), line.repeat(40)).expect("a writable folder");
    let toml = format!(
        "[data]\ntrain = [\"text.txt\"]\nvalidation = [\"text.txt\"]\nsequence_length = 16\n\
         [model]\nd_model = 32\nn_layers = 2\nn_heads = 2\nmlp_hidden_size = 64\n\
         [train]\nlearning_rate = 1e-3\nmicro_batch_tokens = 1\neval_sequences = 5\n\
         eval_mc_samples = 2\nlog_every = 1\n{train_lines}"
    );
    let path = dir.join("train.toml");
    fs::write(&path, toml).expect("a writable folder");
    path
}

/// `llada` on so many ranks.
fn launch(ranks: usize) -> Command {
    let llada = env!("CARGO_BIN_EXE_llada");
    if ranks == 1 {
        return Command::new(llada);
    }
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n"]);
    command.arg(ranks.to_string()).arg(llada);
    command
}

fn train(ranks: usize, config: &Path, run: &Path) -> Command {
    let mut command = launch(ranks);
    command.args(["train", "--threads", "1", "--format", "json", "--config"]);
    command.arg(config).arg(run);
    command
}

/// What a run that ended well printed: one JSON object, whatever the number of ranks.
#[track_caller]
fn result(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The step of the newest checkpoint.
fn newest_step(run: &Path) -> u64 {
    let entries = fs::read_dir(run.join("state")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let step = |name: String| name.strip_prefix("step-")?.parse().ok();
    names.filter_map(step).max().unwrap_or(0)
}

/// Starts a run that would go on for ever, and waits for its first checkpoint.
#[track_caller]
fn start_long(ranks: usize, dir: &Path, run: &Path) -> Child {
    let config = config(dir, "steps = 1000000\nbatch_size = 3\ncheckpoint_every = 4");
    let mut command = train(ranks, &config, run);
    let pipes = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("mpirun is installed");
    while newest_step(run) == 0 {
        let status = child.try_wait().expect("a child");
        assert!(status.is_none(), "{:?}", child.wait_with_output());
        std::thread::yield_now();
    }
    child
}

/// Sends a signal to the process of one rank.
fn signal(child: &Child, rank: usize, signal: &str) {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_rank = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `PID (NAME) STATE PARENT`
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().nth(1) == Some(&child.id().to_string())
    };
    let environment = |pid: &u32| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
    let has_number = |pid: &u32| {
        environment(pid)
            .split(|&b| b == 0)
            .any(|v| v == wanted.as_bytes())
    };
    let pid = pids
        .filter(is_rank)
        .find(has_number)
        .expect("mpirun has started the ranks");
    let pid = pid.to_string();
    let status = Command::new("kill").args([signal, &pid]).status();
    assert!(status.expect("kill").success());
}

#[track_caller]
fn goes_on(ranks: usize, dir: &Path, run: &Path) {
    let step = newest_step(run);
    let lines = format!("steps = {}\nbatch_size = 3\ncheckpoint_every = 4", step + 3);
    let output = train(ranks, &config(dir, &lines), run).output();
    let result = result(&output.expect("mpirun is installed"));
    assert_eq!(result["resumed_from"], step);
    assert_eq!(result["step"], step + 3);
}

#[test]
fn ranks_have_the_bits_of_one_process() {
    for ranks in [2, 3] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lines =
            format!("steps = 7\nbatch_size = {ranks}\neval_every = 3\ncheckpoint_every = 5");
        let config = config(dir.path(), &lines);
        let [one, several] = [1, ranks].map(|ranks| {
            let run = dir.path().join(ranks.to_string());
            let output = train(ranks, &config, &run).output();
            (result(&output.expect("mpirun is installed")), run)
        });
        for field in ["step", "loss", "validation_bound", "tokens"] {
            assert_eq!(one.0[field], several.0[field], "{field}");
        }
        for name in [
            "model.safetensors",
            "state/step-7/parameters.safetensors",
            "state/step-7/first_moments.safetensors",
            "state/step-7/second_moments.safetensors",
        ] {
            let [a, b] = [&one, &several].map(|(_, run)| fs::read(run.join(name)).expect(name));
            assert!(a == b, "{name} differs");
        }
    }
}

#[test]
fn a_rank_that_dies_ends_the_job_and_the_run_goes_on_with_another_number() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let child = start_long(2, dir.path(), &run);
    signal(&child, 1, "-KILL");
    let output = child.wait_with_output().expect("a child");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("exited on signal 9 (Killed)"), "{message}");
    goes_on(3, dir.path(), &run);
    goes_on(1, dir.path(), &run);
}

#[test]
fn a_signal_to_any_rank_stops_all_with_a_checkpoint() {
    for (rank, name) in [(0, "-INT"), (1, "-TERM"), (1, "-USR1")] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let run = dir.path().join("run");
        let child = start_long(2, dir.path(), &run);
        signal(&child, rank, name);
        let result = result(&child.wait_with_output().expect("a child"));
        assert_eq!(result["finished"], false);
        assert_eq!(result["step"], newest_step(&run));
        goes_on(2, dir.path(), &run);
    }
}

#[test]
fn usr1_to_mpirun_stops_all_with_a_checkpoint() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let child = start_long(2, dir.path(), &run);
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-USR1", &pid]).status();
    assert!(status.expect("kill").success());
    let output = child.wait_with_output().expect("a child");
    let errors = String::from_utf8_lossy(&output.stderr);
    // One thread each of the ranks, of however many processors there are.
    assert!(errors.contains("2 ranks, threads of each: 1\n"), "{errors}");
    let result = result(&output);
    assert_eq!(result["finished"], false);
    assert_eq!(result["step"], newest_step(&run));
    goes_on(2, dir.path(), &run);
}

#[test]
fn an_error_of_one_rank_ends_the_job_with_its_message() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    fs::write(&run, b"not a folder").expect("a writable folder");
    let config = config(dir.path(), "steps = 5\nbatch_size = 2");
    let output = train(2, &config, &run)
        .output()
        .expect("mpirun is installed");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let expected = format!("error: rank 0: creating {}/state failed", run.display());
    assert!(message.contains(&expected), "{message}");
    assert!(!message.contains("rank 1:"), "{message}");
}
