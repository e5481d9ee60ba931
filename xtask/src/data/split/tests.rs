use super::{Versions, fnv1a, is_held_out, key};

#[test]
fn the_hash_is_fnv_1a() {
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn the_split_depends_on_the_characters_alone() {
    let poem = |n: u32| {
        let number: String = n
            .to_string()
            .chars()
            .map(|digit| char::from_u32('一' as u32 + digit as u32).unwrap())
            .collect();
        format!("{number}，山。")
    };
    let held_out: Vec<u32> = (0..20_000).filter(|&n| is_held_out(&poem(n))).collect();
    assert!((150..250).contains(&held_out.len()), "{}", held_out.len());
    // Stable from build to build, or the held-out poems would leak into the next training run.
    assert_eq!(held_out[..4], FIRST_HELD_OUT);
    assert!(is_held_out(&poem(held_out[0]).replace('，', "。")));
}

/// Recorded from the first build that wrote the split.
const FIRST_HELD_OUT: [u32; 4] = [61, 98, 223, 256];

#[test]
fn keys_leave_punctuation_out() {
    assert_eq!(key("君家何处住？妾住、在横塘。"), "君家何处住妾住在横塘");
}

#[track_caller]
fn check(poem: &str, expected: bool) {
    let mut versions = Versions::default();
    versions.add("床前明月光，疑是地上霜。举头望明月，低头思故乡。");
    versions.add("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。");
    versions.add("来者，去者。");
    assert_eq!(versions.has_version_of(poem), expected, "{poem}");
}

#[test]
fn versions_share_a_couplet_or_two_clauses() {
    check("床前看月光，疑是地上霜。举头望山月，低头思故乡。", true);
    check("某日某时某，某时某日某。欲穷千里目？更上一层楼！", true);
    check("床前看月光，疑是地上霜。某日某时某，某时某日某。", false);
    // One clause of each of two poems, or one clause twice, tells nothing.
    check("床前明月光，某时某日某。白日依山尽，某日某时某。", false);
    check("床前明月光，某时某日某。床前明月光，某日某时某。", false);
    check("来者，去者。来者，去者。", false);
}
