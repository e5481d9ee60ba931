use super::*;

/// Candidates at `positions` with these confidences and entropies.
fn candidates(numbers: &[(f32, f32)]) -> Vec<Candidate> {
    let of = |&(confidence, entropy): &(f32, f32)| Candidate {
        token: 1,
        confidence,
        margin: confidence,
        entropy,
    };
    numbers.iter().map(of).collect()
}

fn chosen(process: Process, positions: &[usize], numbers: &[(f32, f32)], ratio: f32) -> Vec<usize> {
    let candidates = candidates(numbers);
    let confidences: Vec<f32> = candidates.iter().map(|c| c.confidence).collect();
    let step = Predicted {
        positions,
        candidates: &candidates,
        order: &crate::remask::ranked(&confidences),
        quota: 1,
        mask_ratio: ratio,
    };
    let mut chosen = committed(process, &step);
    chosen.sort_unstable();
    chosen
}

/// Two runs of masks: 3 to 6 and 9 to 11.
const POSITIONS: [usize; 7] = [3, 4, 5, 6, 9, 10, 11];
const NUMBERS: [(f32, f32); 7] = [
    (0.50, 1.2),
    (0.95, 0.2),
    (0.80, 0.6),
    (0.76, 0.7),
    (0.30, 2.0),
    (0.45, 1.5),
    (0.20, 2.5),
];

#[test]
fn each_rule_commits_what_it_says() {
    #[track_caller]
    fn check(process: Process, ratio: f32, expected: &[usize]) {
        assert_eq!(chosen(process, &POSITIONS, &NUMBERS, ratio), expected);
    }
    let leap = |radius| Process::LocalLeap {
        threshold: 0.9,
        relaxed: 0.75,
        radius,
    };
    let runs = |low| Process::Hierarchical { high: 0.9, low };
    let falling = |fall| Process::FallingThreshold {
        threshold: 0.9,
        fall,
    };
    check(Process::Threshold(0.9), 1.0, &[1]);
    check(leap(0), 1.0, &[1]);
    check(leap(1), 1.0, &[1, 2]);
    check(leap(2), 1.0, &[1, 2, 3]);
    check(leap(99), 1.0, &[1, 2, 3]);
    check(runs(0.9), 1.0, &[1]);
    check(runs(0.4), 1.0, &[1, 5]);
    check(falling(0.0), 0.5, &[1]);
    check(falling(0.4), 1.0, &[1]);
    // 0.9 (1 - 0.4 / 2) = 0.72
    check(falling(0.4), 0.5, &[1, 2, 3]);
    // Sums without the largest: 0, 0.2, 0.8, 1.5, 3.0.
    check(Process::EntropyBound(0.0), 1.0, &[1]);
    check(Process::EntropyBound(0.25), 1.0, &[1, 2]);
    check(Process::EntropyBound(0.9), 1.0, &[1, 2, 3]);
    check(Process::EntropyBound(1.6), 1.0, &[0, 1, 2, 3]);
    check(Process::EntropyBound(100.0), 1.0, &[0, 1, 2, 3, 4, 5, 6]);
    // The schedule's one, then those below the bound.
    check(Process::EntropyExit(0.0), 1.0, &[1]);
    check(Process::EntropyExit(0.65), 1.0, &[1, 2]);
    check(Process::EntropyExit(9.0), 1.0, &[0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_largest_entropy_is_left_out_wherever_it_stands() {
    // The trap in a public copy: leaving out the last one instead gives three here.
    let numbers = [(0.9, 3.0), (0.8, 0.5), (0.7, 0.4), (0.6, 0.4)];
    let process = Process::EntropyBound(1.0);
    assert_eq!(chosen(process, &[0, 1, 2, 3], &numbers, 1.0), [0, 1, 2]);
    let numbers = [(0.9, 0.5), (0.8, 3.0), (0.7, 0.4), (0.6, 0.4)];
    assert_eq!(chosen(process, &[0, 1, 2, 3], &numbers, 1.0), [0, 1, 2]);
}

#[test]
fn an_unsure_step_commits_one_and_an_empty_one_none() {
    for process in [
        Process::Threshold(0.99),
        Process::EntropyBound(0.01),
        Process::LocalLeap {
            threshold: 0.99,
            relaxed: 0.1,
            radius: 9,
        },
        Process::Hierarchical {
            high: 0.99,
            low: 0.97,
        },
        Process::FallingThreshold {
            threshold: 0.99,
            fall: 0.0,
        },
        Process::EntropyExit(0.01),
    ] {
        assert_eq!(
            chosen(process, &POSITIONS, &NUMBERS, 1.0),
            [1],
            "{process:?}"
        );
        assert_eq!(chosen(process, &[], &[], 1.0), [0; 0], "{process:?}");
    }
}

#[test]
fn blocks_behind_the_first_one_give_what_passes_the_bar() {
    // The block has three masks; the best of all is one behind it.
    let numbers = [
        (0.5, 1.2),
        (0.6, 0.9),
        (0.4, 1.5),
        (0.95, 0.2),
        (0.55, 1.1),
        (0.8, 0.4),
    ];
    let positions = [3, 4, 5, 6, 7, 8];
    let candidates = candidates(&numbers);
    let confidences: Vec<f32> = candidates.iter().map(|c| c.confidence).collect();
    let step = Predicted {
        positions: &positions,
        candidates: &candidates,
        order: &crate::remask::ranked(&confidences),
        quota: 1,
        mask_ratio: 0.5,
    };
    let check = |process, block_end, expected: &[usize]| {
        let mut kept = committed_of_open(process, &step, block_end);
        kept.sort_unstable();
        assert_eq!(kept, expected, "{process:?} to {block_end}");
    };
    // Without an open block behind it the rule is the rule.
    check(Process::Threshold(0.9), 9, &[3]);
    // The best of the block stays in any case, of the others none that does not pass.
    check(Process::Threshold(0.9), 6, &[1, 3]);
    check(Process::Threshold(0.96), 6, &[1]);
    check(Process::Threshold(0.5), 6, &[0, 1, 3, 4, 5]);
    check(Process::EntropyExit(0.5), 6, &[1, 3, 5]);
    check(Process::EntropyExit(0.1), 6, &[1]);
    // The bar of the block has fallen to 0.45, that of an empty one is 0.9.
    let falling = Process::FallingThreshold {
        threshold: 0.9,
        fall: 1.0,
    };
    check(falling, 6, &[0, 1, 3]);
}
