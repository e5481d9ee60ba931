//! What the compiled code does not say of a launch: dynamic shared memory.
//!
//! The figures are those of the launch plans in `crates/llada-cuda/src/launch`, at the shapes of
//! LLaDA-8B.

/// Entries, and the dynamic shared memory of a block in bytes. An asterisk stands for any part of
/// a name; the first row that fits counts.
const DYNAMIC_SHARED: &[(&str, u32)] = &[];

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

    use super::fits;

    #[test]
    fn an_asterisk_stands_for_any_part() {
        assert!(fits("llada_a_fwd_f32", "llada_a_fwd_f32"));
        assert!(fits("llada_a_fwd_f32_d64", "llada_a_*_d64"));
        assert!(fits("llada_a_fwd_f32", "llada_a_*"));
        assert!(!fits("llada_a_fwd_f32", "llada_a"));
        assert!(!fits("llada_a_fwd_f32_d64", "llada_*_d128"));
    }
}
