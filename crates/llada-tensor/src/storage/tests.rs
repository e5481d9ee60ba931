//! Tests of the pool.

use super::*;

#[test]
fn a_dropped_buffer_is_used_again() {
    let pool = Arc::new(Pool::default());
    let first = pool.take(1000);
    let address = first.bytes().as_ptr();
    drop(first);
    assert_eq!(pool.take(1001).bytes().as_ptr(), address);
}

#[test]
fn buffers_are_aligned_and_have_the_asked_length() {
    let pool = Arc::new(Pool::default());
    for bytes in [0, 4, 63, 64, 65, 4096, 100_000] {
        let buffer = pool.take(bytes);
        assert_eq!(buffer.bytes().len(), bytes);
        assert_eq!(buffer.bytes().as_ptr() as usize % 64, 0);
    }
}

#[test]
fn size_classes_waste_at_most_an_eighth() {
    for n_lines in 0..5000 {
        let class = size_class(n_lines);
        assert!(
            class >= n_lines && class * 8 <= n_lines * 9 + 8,
            "{n_lines} {class}"
        );
    }
}

#[test]
fn scratch_is_zero_aligned_and_has_the_asked_length() {
    for len in [0, 1, 7, 31, 1000] {
        let scratch = Scratch::<u16>::new(len);
        assert_eq!(scratch.len(), len);
        assert!(scratch.iter().all(|&x| x == 0));
        assert_eq!(scratch.as_ptr() as usize % 64, 0);
    }
}
