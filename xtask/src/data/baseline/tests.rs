use super::{ID_BITS, KneserNey, START, mean_nats, unigram};

const OUTCOMES: usize = 6;

fn lines() -> Vec<Vec<u64>> {
    vec![
        vec![2, 3, 4, 1],
        vec![2, 3, 5, 1],
        vec![3, 4, 1],
        vec![2, 3, 4, 4, 1],
        vec![5, 3, 2, 1],
    ]
}

#[test]
fn probabilities_sum_to_one_after_every_history() {
    let trigram = KneserNey::train(&lines(), OUTCOMES);
    let unigram = unigram(&lines(), OUTCOMES);
    for a in [START, 0, 1, 2, 3, 4, 5] {
        for b in [START, 0, 1, 2, 3, 4, 5] {
            let history = a << ID_BITS | b;
            for probability in [&unigram as &dyn Fn(u64, u64) -> f64, &|history, id| {
                trigram.probability(history, id)
            }] {
                let sum: f64 = (0..OUTCOMES as u64)
                    .map(|id| probability(history, id))
                    .sum();
                assert!((sum - 1.0).abs() < 1e-12, "{a} {b}: {sum}");
            }
        }
    }
}

#[test]
fn what_was_seen_is_likelier_than_what_was_not() {
    let trigram = KneserNey::train(&lines(), OUTCOMES);
    let after_2_3 = |id| trigram.probability(2 << ID_BITS | 3, id);
    assert!(after_2_3(4) > after_2_3(5) && after_2_3(5) > after_2_3(2) && after_2_3(0) > 0.0);
    let nats = |lines: &[&[u64]]| {
        let lines = lines.iter().map(|line| line.to_vec()).collect();
        mean_nats(&lines, |history, id| trigram.probability(history, id))
    };
    assert!(nats(&[&[2, 3, 4, 1]]) < nats(&[&[4, 3, 2, 1]]));
}

#[test]
fn a_uniform_model_costs_the_logarithm_of_its_outcomes() {
    let nats = mean_nats(&lines(), |_, _| 0.25);
    assert!((nats - 4f64.ln()).abs() < 1e-12);
}
