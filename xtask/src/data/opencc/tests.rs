use std::fs;

use super::Simplifier;

/// Reads dictionaries written for the test in the folder that the test runner gives.
fn simplifier(name: &str) -> Simplifier {
    let folder = std::env::temp_dir().join(format!("llada-opencc-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "TSCharacters.txt",
        "# a comment\n乾\t干 乾\n坤\t坤\n餘\t余 馀\n闌\t阑\n鴈\t鴈\n臺\t台\n鑪\t𬬻\n",
    );
    write(
        "TSPhrases.txt",
        "乾坤\t乾坤\n乾坤大\t乾坤大\n乾乾淨淨\t干干净净\n",
    );
    write("CJK_Compatibility_Ideographs.txt", "\u{f9d1}\t六\n");
    let simplifier = Simplifier::read(&folder).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    simplifier
}

#[test]
fn the_longest_phrase_goes_before_characters() {
    let simplifier = simplifier("phrases");
    assert_eq!(
        simplifier.convert("乾坤乾，餘乾坤大乾乾淨淨"),
        "乾坤干，余乾坤大干干净净"
    );
    assert_eq!(simplifier.convert(""), "");
    assert_eq!(simplifier.convert("abc。"), "abc。");
    assert_eq!(simplifier.convert("\u{f9d1}"), "六");
}

#[test]
fn variants_have_one_form() {
    let simplifier = simplifier("variants");
    assert_eq!(simplifier.convert("劒鴈鑪臺"), "剑雁炉台");
    let pairs: Vec<(char, char)> = simplifier.pairs().collect();
    assert!(pairs.contains(&('鑪', '炉')) && pairs.contains(&('劒', '剑')));
    assert!(pairs.iter().all(|(from, to)| from != to));
}
