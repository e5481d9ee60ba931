use std::fs;

use super::{LONGEST_RUN, Tokenizer};
use crate::Error;

const MASK: u32 = 0;
const EOS: u32 = 1;
const UNK: u32 = 2;

/// 。 has id 3, 云 4, 山 5.
fn poems() -> Tokenizer {
    let fold = [('雲', '云'), ('山', '云'), ('萬', '万')];
    Tokenizer::character_level_folding(
        ["山云。", "云。", "。山水"].into_iter(),
        2,
        fold.into_iter(),
        &[],
    )
    .unwrap()
}

/// Byte-level BPE with one merge and no unknown token: h e l o ll, the special tokens 5 and 6.
fn subwords() -> Tokenizer {
    let special = |id: u32, content: &str| {
        serde_json::json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    };
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [special(5, "<|mdm_mask|>"), special(6, "<|endoftext|>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "model": {
            "type": "BPE", "vocab": { "h": 0, "e": 1, "l": 2, "o": 3, "ll": 4 }, "merges": ["l l"],
        },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

#[track_caller]
fn check_masks(tokenizer: &Tokenizer, text: &str, expected: &[u32]) {
    let mask = tokenizer.mask_token_id().unwrap();
    let encoded = tokenizer.encode_with_masks(text, mask, None).unwrap();
    assert_eq!(encoded.ids, expected);
}

#[track_caller]
fn check_unknown(result: crate::Result<Vec<u32>>, expected: (char, usize)) {
    match result {
        Err(Error::UnknownCharacter {
            character,
            position,
        }) => {
            assert_eq!((character, position), expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_are_special_tokens_then_characters_by_frequency() {
    let tokenizer = poems();
    assert_eq!(tokenizer.vocab_size(), 6);
    let tokens: Vec<String> = (0..6).map(|id| tokenizer.token(id).unwrap()).collect();
    assert_eq!(tokens, ["[MASK]", "[EOS]", "[UNK]", "。", "云", "山"]);
    assert_eq!(tokenizer.token(6), None);
    assert_eq!(tokenizer.token_to_id("山"), Some(5));
    assert_eq!(tokenizer.token_to_id("水"), None);
    assert_eq!(tokenizer.mask_token_id(), Some(MASK));
    assert_eq!(tokenizer.eos_token_id(), Some(EOS));
    assert_eq!(tokenizer.unk_token_id(), Some(UNK));
}

#[test]
fn each_character_is_one_id_and_decoding_adds_no_spaces() {
    let tokenizer = poems();
    let ids = tokenizer.encode("山云。云山").unwrap();
    assert_eq!(ids, [5, 4, 3, 4, 5]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "山云。云山");
    assert_eq!(tokenizer.encode("").unwrap(), [0; 0]);
    assert_eq!(tokenizer.decode(&[], false).unwrap(), "");
}

#[test]
fn special_tokens_are_found_in_the_text_and_may_be_left_out_of_it() {
    let tokenizer = poems();
    let ids = tokenizer.encode("山[MASK]云[EOS]").unwrap();
    assert_eq!(ids, [5, MASK, 4, EOS]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "山[MASK]云[EOS]");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "山云");
}

#[test]
fn ids_past_the_vocabulary_are_dropped() {
    assert_eq!(poems().decode(&[5, 900, 4], false).unwrap(), "山云");
}

#[test]
fn unknown_characters_become_unk_one_by_one() {
    assert_eq!(poems().encode("水水山x").unwrap(), [UNK, UNK, 5, UNK]);
}

#[test]
fn an_unknown_character_is_named_with_its_position() {
    check_unknown(poems().encode_strict("山。雲水"), ('水', 4));
    check_unknown(poems().encode_strict("\n"), ('\n', 1));
    let encoded = poems().encode_with_masks("山□□。[MASK]é", MASK, None);
    check_unknown(encoded.unwrap().strict(), ('é', 11));
    assert_eq!(poems().encode_strict("山[UNK]云").unwrap(), [5, UNK, 4]);
    let message = poems().encode_strict("山水").unwrap_err().to_string();
    assert_eq!(
        message,
        "encode: character '水' (number 2 of the text) is not in the vocabulary"
    );
}

#[test]
fn the_fold_changes_only_what_the_vocabulary_lacks() {
    let tokenizer = poems();
    // 雲 is read as 云; 山 has an id of its own; 万 has none, so 萬 stays unknown.
    assert_eq!(tokenizer.encode("雲山").unwrap(), [4, 5]);
    check_unknown(tokenizer.encode_strict("雲雲萬"), ('萬', 3));
}

#[test]
fn every_form_of_mask_becomes_the_mask() {
    check_masks(&poems(), "山□[MASK]云", &[5, MASK, MASK, 4]);
    check_masks(&poems(), "山_云", &[5, MASK, 4]);
    check_masks(&poems(), "□山□", &[MASK, 5, MASK]);
    check_masks(&poems(), "山云", &[5, 4]);
    check_masks(&poems(), "", &[]);
}

#[test]
fn stretches_between_masks_are_encoded_by_themselves() {
    let tokenizer = subwords();
    assert_eq!(tokenizer.encode("hello").unwrap(), [0, 1, 4, 3]);
    check_masks(&tokenizer, "hel□lo", &[0, 1, 2, 5, 2, 3]);
    check_masks(&tokenizer, "he<|mdm_mask|>□llo", &[0, 1, 5, 5, 4, 3]);
}

#[test]
fn special_tokens_of_published_models_are_known() {
    let tokenizer = subwords();
    assert_eq!(tokenizer.mask_token_id(), Some(5));
    assert_eq!(tokenizer.eos_token_id(), Some(6));
    assert_eq!(tokenizer.unk_token_id(), None);
    assert_eq!(tokenizer.decode(&[0, 1, 4, 3, 6], true).unwrap(), "hello");
}

#[test]
fn a_saved_tokenizer_is_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = poems();
    tokenizer.save(dir.path()).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let again = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(again.to_json(), tokenizer.to_json());
    assert_eq!(again.encode("雲山水").unwrap(), [4, 5, UNK]);
    let files: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(files, ["tokenizer.json"]);
}

#[test]
fn the_order_of_the_texts_does_not_matter() {
    let build =
        |texts: [&'static str; 2]| Tokenizer::character_level(texts.into_iter(), 1).unwrap();
    assert_eq!(
        build(["山云", "水。"]).to_json(),
        build(["水。", "山云"]).to_json()
    );
}

#[test]
fn a_vocabulary_needs_characters() {
    let built = Tokenizer::character_level(["山", ""].into_iter(), 2);
    assert!(matches!(
        built,
        Err(Error::EmptyVocabulary { min_count: 2 })
    ));
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(&missing, Error::Missing { path } if path.ends_with("tokenizer.json")));
    assert!(missing.to_string().contains("tokenizer.json not found"));

    let json = poems().to_json().to_vec();
    for broken in [&json[..json.len() / 2], b"{}", b"", b"\xff\xfe"] {
        fs::write(dir.path().join("tokenizer.json"), broken).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Parse { path, .. } if path.starts_with(dir.path())),
            "{error}"
        );
    }

    let nowhere = dir.path().join("absent");
    assert!(matches!(poems().save(&nowhere), Err(Error::Write { .. })));
}

#[test]
fn an_underscore_is_a_mask_only_where_nothing_else_marks_one() {
    check_masks(&poems(), "山_□", &[5, UNK, MASK]);
    check_masks(&poems(), "山_[MASK]", &[5, UNK, MASK]);
    let marked = poems()
        .encode_with_masks("山??□_", MASK, Some("??"))
        .unwrap();
    assert_eq!(marked.ids, [5, MASK, UNK, UNK]);
    let texts: Vec<&str> = marked
        .unknown
        .iter()
        .map(|unknown| &*unknown.text)
        .collect();
    assert_eq!(texts, ["□", "_"]);
}

#[test]
fn somebody_who_writes_about_the_mask_token_means_its_text() {
    let tokenizer = poems();
    assert_eq!(tokenizer.encode("山[MASK]").unwrap(), [5, MASK]);
    assert_eq!(
        tokenizer.encode_text("山[MASK]").unwrap(),
        [[5].as_slice(), &[UNK; 6]].concat()
    );
    // Other special tokens are what templates write.
    assert_eq!(tokenizer.encode_text("山[EOS]").unwrap(), [5, EOS]);
}

#[test]
fn a_text_of_which_nothing_is_known_is_an_error() {
    let check = |text: &str| poems().encode_keeping(text).unwrap().check();
    assert!(matches!(check("once upon"), Err(Error::UnknownText { .. })));
    assert_eq!(check("once 山").unwrap().unknown.len(), 5);
    assert!(check("").unwrap().ids.is_empty());
}

#[test]
fn what_is_a_model_of_characters_is_seen_in_its_vocabulary() {
    assert!(poems().is_character_level());
    assert!(!subwords().is_character_level());
    let words = Tokenizer::of_numbers(12);
    assert!(!words.is_character_level());
    assert_eq!(words.decode(&[11, 0, 5], true).unwrap(), "11 0 5");
}

#[test]
fn long_runs_of_white_space_are_refused_and_not_misread() {
    let text = format!("a\nb{}c", " ".repeat(LONGEST_RUN + 1));
    let error = subwords().encode(&text).unwrap_err();
    assert!(matches!(error, Error::LongRun { line: 2, .. }), "{error}");
    assert!(poems().encode(&text).is_ok());
}

/// Right values: `AutoTokenizer` of transformers 5.24 on the same files.
#[test]
fn the_files_beside_a_tokenizer_declare_special_tokens() {
    let ids = |files: &[(&str, &str)], text: &str| {
        let dir = tempfile::tempdir().unwrap();
        subwords().save(dir.path()).unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        // A saved tokenizer needs the files no longer.
        let again = Tokenizer::from_bytes(tokenizer.to_json()).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(again.encode(text).unwrap(), ids);
        (ids.clone(), tokenizer.decode(&ids, true).unwrap())
    };
    let text = "h<x>e";
    let config = r#"{"added_tokens_decoder": {"7": {"content": "<x>", "special": true}}}"#;
    let declared = (vec![0, 7, 1], "he".to_owned());
    assert_eq!(ids(&[("tokenizer_config.json", config)], text), declared);
    let config = r#"{"additional_special_tokens": ["<x>"]}"#;
    assert_eq!(ids(&[("tokenizer_config.json", config)], text), declared);
    let map = (
        "special_tokens_map.json",
        r#"{"eos_token": {"content": "<x>"}}"#,
    );
    assert_eq!(ids(&[map], text), declared);
    let added = ("added_tokens.json", r#"{"<x>": 7}"#);
    assert_eq!(ids(&[added, map], text), declared);
    assert_eq!(ids(&[added], text), (vec![0, 7, 1], "h<x>e".to_owned()));
}

#[test]
fn phrases_decide_before_the_table() {
    let fold = [('雲', '云')];
    let phrases = [
        ("(?<=山)水".to_owned(), '。'),
        ("(?!(?<=云)山)山".to_owned(), '云'),
    ];
    let texts = ["山云。水", "山云。水"].into_iter();
    let tokenizer =
        Tokenizer::character_level_folding(texts, 2, fold.into_iter(), &phrases).unwrap();
    let read = |text: &str| {
        let ids = tokenizer.encode_strict(text).unwrap();
        tokenizer.decode(&ids, true).unwrap()
    };
    assert_eq!(read("山水水"), "云。水");
    assert_eq!(read("云山雲"), "云山云");
}
