use super::*;

#[track_caller]
fn check_filled(confidences: &[f32], threshold: f32, need: usize, expected: &[usize]) {
    assert_eq!(filled(confidences, threshold, need), expected);
}

#[test]
fn a_step_fills_what_is_above_the_bar_or_the_best() {
    check_filled(&[0.9, 0.5, 0.8], 0.7, 1, &[0, 2]);
    // The bar itself is not above the bar.
    check_filled(&[0.9, 0.5, 0.7], 0.7, 1, &[0]);
    check_filled(&[0.9, 0.5, 0.8], 0.85, 2, &[0, 2]);
    check_filled(&[0.1, 0.3, 0.2], 0.7, 1, &[1]);
    check_filled(&[0.1, 0.3, 0.2], 0.7, 9, &[0, 1, 2]);
    // Of equals the first.
    check_filled(&[0.2, 0.2, 0.2], 0.7, 2, &[0, 1]);
    // Fewer are needed than none.
    check_filled(&[0.2, 0.2], 0.7, 0, &[]);
    check_filled(&[0.2, 0.9], 2.0, 1, &[1]);
    check_filled(&[], 0.7, 1, &[]);
}

const IDS: EditTokens = EditTokens {
    mask: 0,
    delete: 1,
    split: 2,
};

/// Masks are `.`, deletions `-`, splits `+`; of the places, capital letters are originals.
#[track_caller]
fn check_scan(written: &str, before: &str, n_given: usize, expected: &str) {
    let id = |c: char| match c {
        '.' => IDS.mask,
        '-' => IDS.delete,
        '+' => IDS.split,
        letter => u32::from(letter.to_ascii_lowercase()),
    };
    let tokens: Vec<u32> = written.chars().map(id).collect();
    let before: Vec<u32> = before.chars().map(id).collect();
    let is_original = vec![true; tokens.len()];
    let places = scan(
        &WrittenBlock {
            tokens: &tokens,
            before: &before,
            is_original: &is_original,
            n_given,
        },
        IDS,
    );
    let found: String = (places.iter())
        .map(|place| match (place.token, place.is_original) {
            (0, false) => '.',
            (0, true) => ':',
            (1, _) => '-',
            (2, _) => '+',
            (token, is_original) => {
                let letter = char::from(token as u8);
                if is_original {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                }
            }
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn deletions_close_up_and_splits_make_room() {
    check_scan("abcd", "abcd", 0, "ABCD");
    check_scan("a-cd", "abcd", 0, "ACD.");
    check_scan("a+cd", "abcd", 0, "A.BC");
    check_scan("a+c-", "abcd", 0, "A.BC");
    check_scan("----", "abcd", 0, "....");
    check_scan("++++", "abcd", 0, ".A.B");
    // A split of a mask is two masks, of which one was there.
    check_scan("+bcd", ".bcd", 0, ".:BC");
}

#[test]
fn what_was_given_is_kept() {
    check_scan("-+cd", "-+ab", 2, "-+CD");
    check_scan("ab-d", "abcd", 2, "abD.");
}

/// Blocks and what becomes of them, made by a script in Python that was written after descriptions
/// of LLaDA2.2's loop, not by the published code.
const RECORDED: &str = include_str!("../../tests/goldens/edit_scan.json");

#[test]
fn scans_are_those_of_the_recording() {
    let file: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
    let id = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let ids = EditTokens {
        mask: id(&file["mask_id"]),
        delete: id(&file["delete_token_id"]),
        split: id(&file["split_token_id"]),
    };
    for case in file["cases"].as_array().unwrap() {
        let tokens =
            |name: &str| -> Vec<u32> { case[name].as_array().unwrap().iter().map(id).collect() };
        let flags = |name: &str| -> Vec<bool> {
            let flags = case[name].as_array().unwrap().iter();
            flags.map(|flag| flag.as_bool().unwrap()).collect()
        };
        let places = scan(
            &WrittenBlock {
                tokens: &tokens("written"),
                before: &tokens("before_write"),
                is_original: &flags("original_mask_tracking"),
                n_given: id(&case["prompt_positions"]) as usize,
            },
            ids,
        );
        let found: Vec<u32> = places.iter().map(|place| place.token).collect();
        assert_eq!(found, tokens("result"));
        let found: Vec<bool> = places.iter().map(|place| place.is_original).collect();
        assert_eq!(found, flags("result_tracking"));
    }
}
