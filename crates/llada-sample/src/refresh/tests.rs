use super::*;

/// A canvas of a prompt of 4 and three blocks of 4, of which `block` is being filled.
fn canvas(block: usize, revealed_in: &[usize; 16]) -> Canvas<'_> {
    let start = 4 + 4 * block;
    let is_masked = |at: usize| at >= start && revealed_in[at] == 0;
    Canvas {
        is_masked: (0..16).map(is_masked).collect(),
        prompt: 4,
        block: start..start + 4,
        block_index: block,
        revealed_in,
    }
}

/// Rows of the calls of a run that reveals a token a call, from the left: `.` is left out, `+` is
/// seen, `#` is computed.
fn pictures(cache: CacheMode, refresh: RefreshPolicy) -> Vec<String> {
    let config = SampleConfig {
        cache,
        refresh,
        ..SampleConfig::default()
    };
    let mut refreshed = Refreshed::default();
    let mut revealed_in = [0; 16];
    let mut pictures = Vec::new();
    for at in 4..16 {
        let block = (at - 4) / 4;
        let plan = refreshed.plan(&config, &canvas(block, &revealed_in));
        let picture = |at: usize| {
            let within = |ranges: &[Range<usize>]| ranges.iter().any(|range| range.contains(&at));
            match (within(&plan.rows), within(&plan.keys)) {
                (true, _) => '#',
                (false, true) => '+',
                (false, false) => '.',
            }
        };
        pictures.push((0..16).map(picture).collect());
        refreshed.called(&config, block, 8 + 4 * block);
        revealed_in[at] = refreshed.calls;
    }
    pictures
}

#[track_caller]
fn check(cache: CacheMode, refresh: RefreshPolicy, first: [&str; 6]) {
    assert_eq!(pictures(cache, refresh)[..6], first, "{cache} {refresh:?}");
}

#[test]
fn each_policy_computes_the_rows_that_it_names() {
    let usual = RefreshPolicy {
        keep_active: 0,
        ..RefreshPolicy::default()
    };
    let all = "################";
    check(CacheMode::None, usual, [all; 6]);
    let prefix = "++++############";
    let next = "++++++++########";
    check(
        CacheMode::Prefix,
        usual,
        [all, prefix, prefix, prefix, all, next],
    );
    let dual = "++++####++++++++";
    let next = "++++++++####++++";
    check(CacheMode::Dual, usual, [all, dual, dual, dual, all, next]);
    let refresh_interval = Some(2);
    let every = RefreshPolicy {
        refresh_interval,
        ..usual
    };
    check(CacheMode::Dual, every, [all, dual, all, dual, all, next]);
    let beside = "+++######+++++++";
    let next = "+++++++######+++";
    let vicinity = RefreshPolicy {
        vicinity: 1,
        ..usual
    };
    check(
        CacheMode::Dual,
        vicinity,
        [all, beside, beside, beside, all, next],
    );
}

#[test]
fn a_suffix_window_leaves_out_all_but_the_last_position() {
    let short = RefreshPolicy {
        suffix_window: Some(2),
        ..RefreshPolicy::default()
    };
    let (first, next) = ("##########.....#", "##############.#");
    check(
        CacheMode::None,
        short,
        [first, first, first, first, next, next],
    );
    let dual = "++++####++.....+";
    let second = "++++++++####++.+";
    check(
        CacheMode::Dual,
        short,
        [first, dual, dual, dual, next, second],
    );
}

#[test]
fn a_suffix_window_leaves_out_no_token_that_is_known() {
    let refresh = RefreshPolicy {
        suffix_window: Some(0),
        ..RefreshPolicy::default()
    };
    let config = SampleConfig {
        refresh,
        ..SampleConfig::default()
    };
    let revealed_in = [0; 16];
    let mut canvas = canvas(0, &revealed_in);
    canvas.is_masked[11..13].fill(false);
    let plan = Refreshed::default().plan(&config, &canvas);
    let seen = [0..8, 11..13, 15..16];
    assert_eq!([plan.keys, plan.rows], [seen.to_vec(), seen.to_vec()]);
}

#[test]
fn the_prompt_is_computed_in_every_so_many_blocks() {
    let kept = |prompt_interval| RefreshPolicy {
        prompt_interval,
        ..RefreshPolicy::default()
    };
    let prompts = |interval| -> Vec<usize> {
        let pictures = pictures(CacheMode::Dual, kept(interval));
        (0..12)
            .filter(|&call| pictures[call].starts_with('#'))
            .collect()
    };
    assert_eq!(prompts(1), [0, 4, 8]);
    assert_eq!(prompts(2), [0, 8]);
    assert_eq!(prompts(3), [0]);
}

#[test]
fn new_tokens_stay_active_for_a_while() {
    let keep = |keep_active| RefreshPolicy {
        keep_active,
        ..RefreshPolicy::default()
    };
    let all = "################";
    let next = "++++++++####++++";
    // Call 5 sees the token of call 4 first, and only then is it left out.
    check(
        CacheMode::Activity,
        keep(0),
        [
            all,
            "++++####++++++++",
            "+++++###++++++++",
            "++++++##++++++++",
            all,
            next,
        ],
    );
    check(
        CacheMode::Activity,
        keep(1),
        [
            all,
            "++++####++++++++",
            "++++####++++++++",
            "+++++###++++++++",
            all,
            "+++++++#####++++",
        ],
    );
}
