//! The `Precompiled` normalizer of `tokenizer.json`: a table of characters and what they become.
//!
//! The format is that of `SentencePiece`: `[u32 bytes of the trie][trie][targets, each ended by a 0 byte]`,
//! little-endian, in base64. The trie is a double array over UTF-8 bytes (Darts): a unit holds its
//! label in bits 0 to 7, "a key ends here" in bit 8 and, from bit 10, the exclusive or of its own
//! place and its children's base. Child `c` of a node stands at `base ^ c`, the value of a key that
//! ends at the node at `base`, with bit 31 set.
//!
//! One lookup costs three or four reads, whatever the size of the table. A sequence of `Replace`
//! normalizers would scan the text once per pair.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

const HAS_VALUE: u32 = 1 << 8;
const IS_VALUE: u32 = 1 << 31;
const OFFSET_SHIFT: u32 = 10;

/// The table in the form that `precompiled_charsmap` wants.
pub(crate) fn encode(fold: &BTreeMap<char, char>) -> String {
    let mut targets = String::new();
    let mut places = BTreeMap::<char, u32>::new();
    let mut keys = Vec::new();
    for (&from, &to) in fold {
        let place = *places.entry(to).or_insert_with(|| {
            let place = u32::try_from(targets.len()).expect("a few thousand short targets");
            targets.push(to);
            targets.push('\0');
            place
        });
        keys.push((from.to_string().into_bytes(), place));
    }
    let mut trie = DoubleArray::default();
    trie.place(0, &keys, 0);
    let units = trie.finish();

    let trie_bytes = u32::try_from(4 * units.len()).expect("a trie of a few thousand keys");
    let mut bytes = trie_bytes.to_le_bytes().to_vec();
    bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(targets.into_bytes());
    base64(&bytes)
}

/// A key and the place of its target.
type Key = (Vec<u8>, u32);

/// The trie while it is built; keys are sorted and none is the beginning of another.
#[derive(Default)]
struct DoubleArray {
    units: Vec<u32>,
    used: Vec<bool>,
    is_base: Vec<bool>,
}

impl DoubleArray {
    /// Lays out the children of the node at `node`, which stands for the first `depth` bytes of
    /// each of `keys`.
    fn place(&mut self, node: usize, keys: &[Key], depth: usize) {
        let label = |key: &Key| key.0.get(depth).copied().unwrap_or(0);
        let groups: Vec<&[Key]> = keys.chunk_by(|a, b| label(a) == label(b)).collect();
        let labels: Vec<u8> = groups.iter().map(|group| label(&group[0])).collect();
        if labels.is_empty() {
            return;
        }
        let base = self.free_base(&labels);
        self.is_base[base] = true;
        let offset = u32::try_from(node ^ base).expect("the array is short");
        self.units[node] |= offset << OFFSET_SHIFT;
        for (&label, group) in labels.iter().zip(&groups) {
            let child = base ^ usize::from(label);
            self.used[child] = true;
            if label == 0 {
                self.units[node] |= HAS_VALUE;
                self.units[child] = group[0].1 | IS_VALUE;
            } else {
                self.units[child] = u32::from(label);
            }
        }
        for (&label, group) in labels.iter().zip(&groups).filter(|&(&label, _)| label != 0) {
            self.place(base ^ usize::from(label), group, depth + 1);
        }
    }

    /// The first base that no other node has and whose places for `labels` are free.
    fn free_base(&mut self, labels: &[u8]) -> usize {
        let mut base = 1;
        loop {
            // Whole blocks of 256, so that a reader never looks past the end.
            let end = (base / 256 + 1) * 256;
            if self.units.len() < end {
                self.units.resize(end, 0);
                self.used.resize(end, false);
                self.is_base.resize(end, false);
                self.used[0] = true;
            }
            if !self.is_base[base]
                && labels
                    .iter()
                    .all(|&label| !self.used[base ^ usize::from(label)])
            {
                return base;
            }
            base += 1;
        }
    }

    /// The array; at least one block, so that a reader finds the root.
    fn finish(mut self) -> Vec<u32> {
        if self.units.is_empty() {
            self.units.resize(256, 0);
        }
        self.units
    }
}

/// Base64 with the standard alphabet and padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, i| {
            group << 8 | u32::from(chunk.get(i).copied().unwrap_or(0))
        });
        for i in 0..4 {
            if i <= chunk.len() {
                let sextet = (group >> (18 - 6 * i)) & 63;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}
