//! Steps that would do harm.

use std::path::Path;

use llada_train::{Error, Result, Single, StepReport, Summary, TrainConfig};

use crate::toy::{Toy, config, run_harmed, write_texts};

const NAN: f32 = f32::NAN;

fn guarded(folder: &Path, lines: &str) -> TrainConfig {
    write_texts(folder);
    let lines = format!("steps = 30\nbatch_size = 4\ncheckpoint_every = 5\n{lines}");
    config(folder, "diffusion", &lines)
}

fn run(
    config: &TrainConfig,
    folder: &Path,
    stop_after: u64,
    harm: &[(u64, f32)],
) -> Result<(Toy, Summary, Vec<StepReport>)> {
    run_harmed(&Single, config, folder, stop_after, harm)
}

#[test]
fn a_step_that_is_no_number_ends_the_run_unless_it_may_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let strict = guarded(path, "");
    let error = run(&strict, &path.join("strict"), 30, &[(12, NAN)]).unwrap_err();
    assert!(
        matches!(error, Error::NonFinite { step: 13, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("max_skipped_steps"), "{error}");
    // All that was reached before is there.
    assert!(path.join("strict/state/step-10").is_dir());

    let lenient = guarded(path, "max_skipped_steps = 2");
    let harm = [(12, NAN), (13, f32::INFINITY), (20, NAN)];
    let (model, summary, reports) = run(&lenient, &path.join("lenient"), 30, &harm).unwrap();
    assert_eq!((summary.step, summary.skipped_steps), (30, 3));
    let steps: Vec<u64> = reports.iter().map(|report| report.step).collect();
    let taken = (1..=30).filter(|step| ![13, 14, 21].contains(step));
    assert_eq!(steps, taken.collect::<Vec<_>>());
    assert!(
        model
            .bits()
            .into_iter()
            .map(f32::from_bits)
            .all(f32::is_finite)
    );
    let metrics = std::fs::read_to_string(path.join("lenient/metrics.jsonl")).unwrap();
    assert!(
        metrics.lines().last().unwrap().contains("\"skipped\":3"),
        "{metrics}"
    );
}

#[test]
fn a_spike_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let lines = "max_skipped_steps = 1\nspike_factor = 20.0";
    let config = guarded(path, lines);
    let (_, summary, reports) = run(&config, &path.join("run"), 30, &[(15, 1e4)]).unwrap();
    assert_eq!(summary.skipped_steps, 1);
    assert!(reports.iter().all(|report| report.step != 16));

    let config = guarded(path, "spike_factor = 20.0");
    let error = run(&config, &path.join("ends"), 30, &[(15, 1e4)]).unwrap_err();
    assert!(matches!(error, Error::Spike { step: 16, .. }), "{error}");
}

#[test]
fn after_too_many_in_a_row_the_parameters_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = guarded(path, "max_skipped_steps = 2");
    let three = [(12, NAN), (13, NAN), (14, NAN)];
    let (model, summary, _) = run(&config, &path.join("back"), 30, &three).unwrap();
    assert_eq!((summary.step, summary.skipped_steps), (30, 3));
    // Steps 11 and 12 are undone: as if they had been left out as well.
    let longer = guarded(path, "max_skipped_steps = 9");
    let five = [(10, NAN), (11, NAN), (12, NAN), (13, NAN), (14, NAN)];
    let (same, _, _) = run(&longer, &path.join("out"), 30, &five).unwrap();
    assert_eq!(model.bits(), same.bits());

    let once = guarded(path, "max_skipped_steps = 1\nmax_rollbacks = 1");
    let twice = [(12, NAN), (13, NAN), (17, NAN), (18, NAN)];
    let error = run(&once, &path.join("once"), 30, &twice).unwrap_err();
    assert!(
        matches!(error, Error::NonFinite { step: 19, .. }),
        "{error}"
    );
}

#[test]
fn a_resumed_run_repeats_what_was_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = guarded(path, "max_skipped_steps = 2\nspike_factor = 20.0");
    let harm = [(7, NAN), (12, 1e4), (13, NAN), (14, NAN), (22, 1e4)];
    let (whole, expected, _) = run(&config, &path.join("whole"), 30, &harm).unwrap();
    assert_eq!(expected.skipped_steps, 5);
    for stop in [8, 13, 14, 15, 16, 23] {
        let folder = path.join(format!("stopped-{stop}"));
        run(&config, &folder, stop, &harm).unwrap();
        let (model, summary, _) = run(&config, &folder, 0, &harm).unwrap();
        assert_eq!(model.bits(), whole.bits(), "stopped at {stop}");
        assert_eq!(summary.skipped_steps, 5, "stopped at {stop}");
    }
}
