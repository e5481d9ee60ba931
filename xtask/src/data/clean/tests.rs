use super::{clauses, clean, cut, regular_couplets};

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(clean(text).as_deref(), Some(expected));
}

#[track_caller]
fn check_dropped(text: &str) {
    assert_eq!(clean(text), None);
}

#[test]
fn notes_in_round_brackets_go_with_their_text() {
    check("闌風長雨（一作「東風細雨」）秋紛紛。", "闌風長雨秋紛紛。");
    check(
        "功蓋三分國。（名成 一作(又作）名高)江流石不轉。",
        "功蓋三分國。江流石不轉。",
    );
    check(
        "春眠不覺曉，(曉 一作:晚）處處聞啼鳥。",
        "春眠不覺曉，處處聞啼鳥。",
    );
}

#[test]
fn marks_of_editors_go_and_their_words_stay() {
    check("[爽]節在重九，〖物〗華新雨餘。", "爽節在重九，物華新雨餘。");
    check(
        "童子解吟《長恨曲》，胡兒能唱《琵琶篇》。",
        "童子解吟長恨曲，胡兒能唱琵琶篇。",
    );
    check("人曰「去」，我曰“來”。", "人曰去，我曰來。");
}

#[test]
fn lost_characters_drop_the_poem() {
    check_dropped("綬吐芽猶嫩，冰□已鏤津。");
    check_dropped("岸囗青山，●啼深竹。");
    check_dropped("絲竹羅酒{炙火=肉}。");
    check_dropped("⿰木養深黃狖小。");
    check_dropped("……又曰。");
    check_dropped("闌風（長雨。");
    check_dropped("闌風）長雨。");
    check_dropped("");
    check_dropped("，。");
}

#[test]
fn punctuation_is_uniform() {
    check(
        " 春 眠,不覺曉.處處?聞!啼;鳥 \u{3000}",
        "春眠，不覺曉。處處？聞！啼；鳥。",
    );
    check("，春眠，。不覺曉？。處處。，聞", "春眠。不覺曉？處處。聞。");
    check("春眠不覺曉，", "春眠不覺曉。");
    check("何年致此身？。", "何年致此身？");
    check("駱、駱，爾勿嘶。", "駱、駱，爾勿嘶。");
}

#[test]
fn couplets_of_regular_poems_are_closed() {
    check(
        "一二三四五，一二三四五，一二三四五；一二三四五；",
        "一二三四五，一二三四五。一二三四五，一二三四五。",
    );
}

#[test]
fn irregular_poems_and_questions_keep_their_marks() {
    check(
        "君不见，黄河之水天上来，奔流到海不复回。",
        "君不见，黄河之水天上来，奔流到海不复回。",
    );
    let asked = "君家何处住？妾住在横塘。停船暂借问，或恐是同乡。";
    check(asked, asked);
}

#[test]
fn clauses_leave_the_marks_out() {
    assert_eq!(
        clauses("君家何处住？妾住、在横塘。停船：去"),
        ["君家何处住", "妾住、在横塘", "停船", "去"]
    );
}

#[test]
fn long_poems_are_cut_at_couplet_ends_into_even_pieces() {
    let couplet = "白日依山尽，黄河入海流。";
    let poem = couplet.repeat(11);
    let pieces = cut(&poem, 126).unwrap();
    assert_eq!(pieces, [couplet.repeat(5), couplet.repeat(6)]);
    for n in 1..60 {
        let poem = couplet.repeat(n);
        let pieces = cut(&poem, 126).unwrap();
        assert_eq!(pieces.concat(), poem);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.chars().count() <= 126 && piece.ends_with('。'))
        );
        assert_eq!(pieces.len() == 1, n <= 10);
    }
}

#[test]
fn a_poem_of_one_endless_sentence_is_not_cut() {
    assert_eq!(cut(&"白日依山尽，".repeat(30), 126), None);
    assert_eq!(
        cut("白日依山尽，黄河入海流。", 126).unwrap(),
        ["白日依山尽，黄河入海流。"]
    );
}

#[test]
fn couplets_come_from_regular_poems_only() {
    let quatrain = "君家何处住？妾住在横塘。停船暂借问，或恐是同乡。";
    assert_eq!(
        regular_couplets(quatrain),
        ["君家何处住？妾住在横塘。", "停船暂借问，或恐是同乡。"]
    );
    let none: [&str; 0] = [];
    assert_eq!(
        regular_couplets("前不见古人，后不见来者。念天地之悠悠，独怆然而涕下。"),
        none
    );
    assert_eq!(regular_couplets("白日依山尽，黄河入海流。"), none);
    assert_eq!(
        regular_couplets("白日依山尽，黄河入海流。欲穷千里目。"),
        none
    );
}
