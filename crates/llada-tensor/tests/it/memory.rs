//! Memory that ops take while they run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use llada_tensor::{CpuConfig, Device};

use crate::attention::{Inputs, attention};

thread_local! {
    /// Bytes that this thread has taken and not given back, and the most that these have been.
    static BYTES: Cell<[isize; 2]> = const { Cell::new([0, 0]) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    let [now, peak] = BYTES.get();
    BYTES.set([now + bytes, peak.max(now + bytes)]);
}

#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the block came from `System.alloc` above, with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The most bytes that this thread has on top of what it has now, while `f` runs.
fn peak_bytes(f: impl FnOnce()) -> isize {
    let [before, _] = BYTES.get();
    BYTES.set([before, before]);
    f();
    BYTES.get()[1] - before
}

/// All inputs, outputs and copies are `[L, E]`: together fewer than 40 of these, with `E` padded
/// to 32. The matrix of scores would be 128 of them at the longer length.
#[test]
fn of_attention_grows_with_the_length_only() {
    const E: usize = 16;
    // One thread is the caller, whose memory is counted.
    let config = CpuConfig {
        threads: 1,
        level: None,
    };
    let mut peaks = Vec::new();
    for len in [2048, 4096] {
        let shape = attention(&[0, len], [1, 1], E);
        let inputs = Inputs::new(&shape);
        let device = Device::cpu(config).expect("ok");
        let peak = peak_bytes(|| drop(inputs.run(&device, &shape)));
        let bound = (40 * len * 2 * E * 4).cast_signed();
        assert!(peak > 0 && peak < bound, "length {len}: {peak} bytes");
        peaks.push(peak);
    }
    assert!(peaks[1] * 10 < peaks[0] * 21, "{peaks:?} bytes");
}
