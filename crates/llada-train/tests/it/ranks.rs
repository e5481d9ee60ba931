//! Runs of several ranks: the bits of a run of one, one end for all.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use llada_train::{Error, Result, StepReport, Summary, TrainConfig};

use crate::threads::ThreadRank;
use crate::toy::{config, run_as, write_texts};

const NEVER: u64 = u64::MAX;

/// How a rank ended: parameters, summary, reports.
type End = (Vec<u32>, Summary, Vec<StepReport>);

/// Runs `size` ranks, each until `stop_after(rank)`; `None` for those that another one ended.
fn run_each(
    size: usize,
    config_of: impl Fn(usize) -> TrainConfig + Sync,
    run: &Path,
    stop_after: impl Fn(usize) -> u64 + Sync,
) -> Vec<Option<Result<End>>> {
    let work = |at: usize, rank: &ThreadRank| {
        let run = || run_as(rank, &config_of(at), run, stop_after(at), false);
        let end = catch_unwind(AssertUnwindSafe(run)).ok();
        if !matches!(end, Some(Ok(_))) {
            rank.fail();
        }
        end.map(|end| end.map(|(model, summary, reports)| (model.bits(), summary, reports)))
    };
    thread::scope(|scope| {
        let start = |(at, rank)| scope.spawn(move || work_with(&work, at, rank));
        let group = ThreadRank::group(size).into_iter().enumerate();
        let threads: Vec<_> = group.map(start).collect();
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.collect()
    })
}

/// The rank belongs to its thread.
#[expect(clippy::needless_pass_by_value, reason = "it is moved to the thread")]
fn work_with<T>(work: &impl Fn(usize, &ThreadRank) -> T, at: usize, rank: ThreadRank) -> T {
    work(at, &rank)
}

/// Runs that must end well; all ranks end with the same parameters after the same step.
#[track_caller]
fn run(size: usize, config: &TrainConfig, run: &Path, stop_after: u64) -> End {
    let ends = run_each(size, |_| config.clone(), run, |_| stop_after);
    let mut ends: Vec<End> = ends.into_iter().map(|end| end.unwrap().unwrap()).collect();
    for (bits, summary, reports) in &ends {
        assert_eq!(*bits, ends[0].0);
        assert_eq!(summary.step, ends[0].1.step);
        assert_eq!(*reports, ends[0].2);
    }
    ends.swap_remove(0)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_texts(folder.path());
        Self(folder)
    }

    fn config(&self, train_lines: &str) -> TrainConfig {
        config(self.0.path(), "diffusion", train_lines)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[track_caller]
fn assert_same_files(a: &Path, b: &Path, step: u64) {
    let state = ["parameters", "first_moments", "second_moments"];
    let state = state.map(|name| format!("state/step-{step}/{name}.safetensors"));
    let names = state.iter().map(String::as_str);
    for name in names.chain(["model.safetensors", "metrics.jsonl"]) {
        let [a, b] = [a, b].map(|run| fs::read(run.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}

/// One sequence is one micro-batch: as many of them as ranks.
#[track_caller]
fn check_bits(size: usize, objective: &str, lines: &str) {
    let folder = Folder::new();
    let lines = format!(
        "steps = 20\nbatch_size = {size}\nmicro_batch_tokens = 1\neval_every = 6\n\
         checkpoint_every = 8\nlog_every = 1\n{lines}"
    );
    let config = config(folder.0.path(), objective, &lines);
    let (one, several) = (folder.path("one"), folder.path("several"));
    let (bits, _, reports) = run(1, &config, &one, NEVER);
    let (other_bits, _, other_reports) = run(size, &config, &several, NEVER);
    assert_eq!(bits, other_bits);
    assert_eq!(reports, other_reports);
    assert_same_files(&one, &several, 20);
}

#[test]
fn two_ranks_have_the_bits_of_one_process_with_two_micro_batches() {
    check_bits(2, "diffusion", "");
    check_bits(2, "autoregressive", "");
    check_bits(2, "diffusion", "optimizer = \"muon\"");
}

#[test]
fn three_and_four_ranks_have_the_bits_of_three_and_four_micro_batches() {
    check_bits(3, "diffusion", "random_length_probability = 0.3");
    check_bits(
        4,
        "diffusion",
        "t_sampler = \"stratified\"\nclip_norm = 0.1",
    );
    // More ranks than parameters to share.
    check_bits(6, "diffusion", "");
}

#[test]
fn a_rank_without_work_changes_nothing() {
    let folder = Folder::new();
    let config = folder.config("steps = 9\nbatch_size = 1");
    run(1, &config, &folder.path("one"), NEVER);
    run(3, &config, &folder.path("three"), NEVER);
    assert_same_files(&folder.path("one"), &folder.path("three"), 9);
}

#[test]
fn several_micro_batches_a_rank_differ_by_rounding_alone() {
    let folder = Folder::new();
    let config = folder.config("steps = 1\nbatch_size = 12\nmicro_batch_tokens = 1");
    let (.., one) = run(1, &config, &folder.path("one"), NEVER);
    for size in [2, 3, 4, 6] {
        let (.., several) = run(size, &config, &folder.path(&format!("{size}")), NEVER);
        // The loss is summed in the same order; the gradient is an f32 sum of 12 parts.
        assert_eq!(several[0].loss.to_bits(), one[0].loss.to_bits());
        let error = (several[0].grad_norm / one[0].grad_norm - 1.0).abs();
        assert!(error <= 12.0 * f64::from(f32::EPSILON), "{error}");
    }
}

#[test]
fn a_run_goes_on_with_any_number_of_ranks() {
    let folder = Folder::new();
    let config = folder.config("steps = 20\nbatch_size = 4\nmicro_batch_tokens = 1\nlog_every = 1");
    let (straight, moved) = (folder.path("straight"), folder.path("moved"));
    run(1, &config, &straight, NEVER);
    for (size, until) in [(4, 5), (1, 9), (4, 15), (1, NEVER)] {
        run(size, &config, &moved, until);
    }
    assert_same_files(&straight, &moved, 20);

    let longer = folder.config("steps = 26\nbatch_size = 4\nmicro_batch_tokens = 1");
    let (_, summary, _) = run(3, &longer, &moved, NEVER);
    assert_eq!((summary.step, summary.resumed_from), (26, Some(20)));
}

#[test]
fn a_stop_on_any_rank_stops_all_after_the_same_step() {
    for who in 0..3 {
        let folder = Folder::new();
        let (config, path) = (
            folder.config("steps = 20\nbatch_size = 3"),
            folder.path("run"),
        );
        let until = |rank| if rank == who { 7 } else { NEVER };
        for end in run_each(3, |_| config.clone(), &path, until) {
            let (_, summary, _) = end.unwrap().unwrap();
            assert_eq!((summary.step, summary.finished), (7, false));
        }
        let (_, summary, _) = run(2, &config, &path, NEVER);
        assert_eq!(summary.resumed_from, Some(7));
    }
}

#[test]
fn what_is_no_number_is_an_error_on_every_rank() {
    let folder = Folder::new();
    let path = folder.path("run");
    let mut config = folder.config("steps = 9\nbatch_size = 4\nwarmup_steps = 1");
    run(2, &config, &path, 2);
    config.train.learning_rate = 1e30;
    for end in run_each(2, |_| config.clone(), &path, |_| NEVER) {
        let error = end.unwrap().unwrap_err();
        assert!(matches!(error, Error::NonFinite { step: 4, .. }), "{error}");
    }
    config.train.learning_rate = 1e-2;
    let (_, summary, _) = run(2, &config, &path, NEVER);
    assert_eq!(summary.resumed_from, Some(2));
}

#[test]
fn a_rank_that_cannot_write_ends_the_others_and_the_run_can_go_on() {
    let folder = Folder::new();
    let (config, path) = (
        folder.config("steps = 9\nbatch_size = 3"),
        folder.path("run"),
    );
    run(3, &config, &path, 4);
    let blocked = path.join("state/step-9.tmp");
    fs::write(&blocked, b"").unwrap();
    let ends = run_each(3, |_| config.clone(), &path, |_| NEVER);
    let [Some(Err(error)), None, None] = &ends[..] else {
        panic!("{ends:?}")
    };
    let expected = format!("removing {} failed", blocked.display());
    assert_eq!(error.to_string(), expected);
    fs::remove_file(&blocked).unwrap();
    let (_, summary, _) = run(2, &config, &path, NEVER);
    assert_eq!((summary.step, summary.resumed_from), (9, Some(4)));
}

#[test]
fn ranks_that_read_other_data_are_an_error() {
    let (folder, other) = (Folder::new(), Folder::new());
    fs::write(other.path("b.txt"), "abcdefghij\n").unwrap();
    let lines = "steps = 9\nbatch_size = 3";
    let config_of = |rank| if rank == 2 { &other } else { &folder }.config(lines);
    for end in run_each(3, config_of, &folder.path("run"), |_| NEVER) {
        let error = end.unwrap().unwrap_err();
        assert!(matches!(error, Error::RankDiffers { rank: 2 }), "{error}");
    }
}
