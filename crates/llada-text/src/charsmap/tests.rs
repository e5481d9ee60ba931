use std::collections::BTreeMap;

use tokenizers::NormalizerWrapper;
use tokenizers::tokenizer::{NormalizedString, Normalizer};

use super::{base64, encode};

fn normalizer(fold: &BTreeMap<char, char>) -> NormalizerWrapper {
    let json = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": encode(fold) });
    serde_json::from_value(json).unwrap()
}

fn normalize(normalizer: &NormalizerWrapper, text: &str) -> String {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).unwrap();
    normalized.get().to_owned()
}

#[test]
fn each_key_becomes_its_target_and_nothing_else_changes() {
    let fold = BTreeMap::from([
        ('雲', '云'),
        ('劍', '剑'),
        ('劒', '剑'),
        ('𫝈', '㑮'),
        ('é', 'e'),
    ]);
    let normalizer = normalizer(&fold);
    assert_eq!(normalize(&normalizer, "雲劍劒𫝈é"), "云剑剑㑮e");
    let others = "云雳雱劎春 abc\n，\u{10ffff}\u{7f}\u{80}";
    assert_eq!(normalize(&normalizer, others), others);
}

#[test]
fn a_large_table_is_read_back_whole() {
    let fold: BTreeMap<char, char> = ('一'..'丠')
        .map(|from| (from, char::from_u32(u32::from(from) + 0x2000).unwrap()))
        .collect();
    assert_eq!(fold.len(), 32);
    let fold: BTreeMap<char, char> = ('\u{4e00}'..'\u{6000}')
        .step_by(3)
        .map(|from| (from, '\u{9000}'))
        .chain(fold)
        .collect();
    let normalizer = normalizer(&fold);
    for character in '\u{3400}'..'\u{a000}' {
        let expected = fold.get(&character).copied().unwrap_or(character);
        assert_eq!(
            normalize(&normalizer, &character.to_string()),
            expected.to_string()
        );
    }
}

#[test]
fn base64_of_every_remainder() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("\u{7f}>?~", "fz4/fg=="),
    ] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}
