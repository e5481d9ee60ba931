use super::*;

#[test]
fn a_quatrain_makes_an_acrostic_and_both_neighbors() {
    let poem = "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。";
    let found = pairs(poem);
    assert_eq!(found.len(), 3);
    let acrostics = [
        ("五言藏头：白黄。", "白日依山尽，黄河入海流。"),
        ("五言藏头：白黄欲更。", poem),
    ];
    let is_one = |(prompt, completion): &(&str, &str)| {
        found[0].prompt == *prompt && found[0].completion == *completion
    };
    assert!(acrostics.iter().any(is_one), "{:?}", found[0]);
    let neighbors = [
        ("白日依山尽，", "黄河入海流。"),
        ("欲穷千里目，", "更上一层楼。"),
    ];
    let of = |(first, second): &(&str, &str)| {
        found[1].prompt == format!("上句：{second}") && found[1].completion == *first
    };
    assert!(neighbors.iter().any(of), "{:?}", found[1]);
    let of = |(first, second): &(&str, &str)| {
        found[2].prompt == format!("下句：{first}") && found[2].completion == *second
    };
    assert!(neighbors.iter().any(of), "{:?}", found[2]);
}

#[test]
fn seven_characters_are_told_and_other_forms_left_out() {
    let poem = "春眠不觉晓处处，闻啼鸟夜来风雨。声花落知多少人，家住江南又一春。";
    assert!(pairs(poem)[0].prompt.starts_with("七言藏头：春闻"));
    assert!(pairs("前不见古人，后不见来者。念天地之悠悠，独怆然而涕下。").is_empty());
    assert!(pairs("").is_empty());
}

#[test]
fn poems_differ_in_their_draws() {
    let draws: Vec<u64> = ["白", "日", "依"]
        .iter()
        .map(|poem| draw(poem, "poem"))
        .collect();
    assert_ne!(draws[0], draws[1]);
    assert_ne!(draw("白", "before"), draw("白", "after"));
}

#[test]
fn files_hold_the_pairs_of_their_poems() {
    let folder = std::env::temp_dir().join(format!("llada-instructions-{}", std::process::id()));
    let (poems, instructions) = (folder.join("poems"), folder.join("instructions"));
    fs::create_dir_all(&poems).expect("a writable folder");
    let error = prepare(&poems, &instructions)
        .expect_err("no poems")
        .to_string();
    assert!(error.contains("cargo xtask data poems"), "{error}");
    let poem = "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。\n";
    for name in ["train.txt", "heldout.txt", "famous.txt"] {
        fs::write(poems.join(name), poem).expect("a writable folder");
    }
    let report = prepare(&poems, &instructions).expect("poems");
    assert_eq!(report["heldout.jsonl"], 3);
    let text = fs::read_to_string(instructions.join("famous.jsonl")).expect("written");
    let line: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert!(line["prompt"].is_string() && line["completion"].is_string());
    fs::remove_dir_all(&folder).expect("ours");
}
