//! Traditional characters that people give the embedded model.

use llada::Checkpoint;

/// Right values: OpenCC 1.4.2 (t2s), and the standard form of 瞭 and 妳.
#[test]
fn phrases_say_what_a_traditional_text_becomes() {
    let tokenizer = Checkpoint::embedded().unwrap().tokenizer().unwrap();
    for (text, expected) in [
        ("霜葉紅於二月花", "霜叶红于二月花"),
        ("蠟炬成灰淚始乾", "蜡炬成灰泪始干"),
        ("乾坤日夜浮", "乾坤日夜浮"),
        ("徵兵", "征兵"),
        ("流徵", "流徵"),
        ("浮沈", "浮沉"),
        ("沈舟側畔千帆過", "沈舟侧畔千帆过"),
        ("反覆", "反复"),
        ("傾覆", "倾覆"),
        ("憑藉", "凭借"),
        ("慰藉", "慰藉"),
        ("瞭望妳", "了望你"),
        ("於菟", "於菟"),
        ("于是", "于是"),
    ] {
        let ids = tokenizer.encode_strict(text).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected);
    }
}
