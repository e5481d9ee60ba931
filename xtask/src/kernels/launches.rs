//! What the compiled code does not say of a launch: dynamic shared memory.
//!
//! The figures are those of the launch plans in `crates/llada-cuda/src/launch`, at the shapes of
//! LLaDA-8B.

/// Entries, and the dynamic shared memory of a block in bytes. An asterisk stands for any part of
/// a name; the first row that fits counts.
const DYNAMIC_SHARED: &[(&str, u32)] = &[
    // A ring of tiles of 64 keys or values: 4 of them at head dimension 64, 3 at 128. More than 64
    // queries lie behind it.
    ("llada_attention_fwd_*_d64_q64", 4 * 64 * 128),
    ("llada_attention_fwd_*_d64_q128", (4 * 64 + 128) * 128),
    ("llada_attention_fwd_*_d128_q64", 3 * 64 * 256),
    ("llada_attention_fwd_*_d128_q128", (3 * 64 + 128) * 256),
    // Two tiles of 64 own rows, and two stages of two tiles of 8 KiB with two numbers per row.
    (
        "llada_attention_bwd_bf16_*_d64",
        2 * 64 * 128 + 2 * (2 * 8192 + 8 * 64),
    ),
    (
        "llada_attention_bwd_bf16_*_d128",
        2 * 64 * 256 + 2 * (2 * 8192 + 8 * 32),
    ),
    // Slabs of 128 bytes of a tile of 128 vocabulary entries and of the rows of hidden states.
    ("llada_candidates_fwd_*_r16", 4 * (128 + 16) * 128),
    ("llada_candidates_fwd_*_r32", 4 * (128 + 32) * 128),
    ("llada_candidates_fwd_*_r64", 3 * (128 + 64) * 128),
    ("llada_candidates_fwd_*_r128", 3 * (128 + 128) * 128),
    ("llada_cross_entropy_*_r16", 4 * (128 + 16) * 128),
    ("llada_cross_entropy_*_r64", 3 * (128 + 64) * 128),
    ("llada_cross_entropy_*_r128", 3 * (128 + 128) * 128),
    // A tile of 16 rows of logits, 16 bytes longer each.
    ("llada_candidates_fwd_logits_f32", 16 * 132 * 4),
    ("llada_cross_entropy_fwd_logits_f32", 16 * 132 * 4),
    // `LLADA_QUANTIZED_INT8_SHARED` and `_INT4_SHARED`.
    ("llada_quantized_matmul_fwd_int8", 82_944),
    ("llada_quantized_matmul_fwd_int4", 76_800),
    // Scores of a warp's token, for 16 warps of up to 64 experts.
    ("llada_route_*", 16 * 256),
    // As of the dense products.
    ("llada_moe_quantized_fwd_int8", 82_944),
    ("llada_moe_quantized_fwd_int4", 76_800),
];

/// Dynamic shared memory of an entry, if the table has it.
pub(super) fn dynamic_shared(entry: &str) -> Option<u32> {
    let row = DYNAMIC_SHARED
        .iter()
        .find(|(pattern, _)| fits(entry, pattern));
    row.map(|&(_, bytes)| bytes)
}

/// Whether a name has the form of a pattern with asterisks.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| fits(&rest[at..], tail))
        }),
    }
}

#[cfg(test)]
mod tests {
    //! Patterns of names.

    use super::{dynamic_shared, fits};

    #[test]
    fn entries_that_differ_in_their_tiles_have_different_rows() {
        assert_eq!(
            dynamic_shared("llada_attention_fwd_bf16_d128_q64"),
            Some(49_152)
        );
        assert_eq!(
            dynamic_shared("llada_attention_fwd_bf16_d128_q128"),
            Some(81_920)
        );
        assert_eq!(dynamic_shared("llada_attention_fwd_f32_d128"), None);
        assert_eq!(
            dynamic_shared("llada_cross_entropy_bwd_f32_r64"),
            Some(73_728)
        );
    }

    #[test]
    fn an_asterisk_stands_for_any_part() {
        assert!(fits("llada_a_fwd_f32", "llada_a_fwd_f32"));
        assert!(fits("llada_a_fwd_f32_d64", "llada_a_*_d64"));
        assert!(fits("llada_a_fwd_f32", "llada_a_*"));
        assert!(!fits("llada_a_fwd_f32", "llada_a"));
        assert!(!fits("llada_a_fwd_f32_d64", "llada_*_d128"));
    }
}
