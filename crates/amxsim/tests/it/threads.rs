//! Several threads at once, each with its own tiles.

use std::arch::asm;

use crate::asm::{Random, config, inside, load, load_config, release, store, store_config, zero};

/// Every thread has other shapes and other data, and is interrupted often.
#[test]
fn each_has_its_own_tiles() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let shape = (4 * thread + 3, 16 * thread + 4);
                let mut random = Random(thread as u64);
                for _ in 0..50 {
                    let config = config(&[shape; 8]);
                    load_config(&config);
                    let data: Vec<_> = (0..8).map(|_| random.tile()).collect();
                    for (tile, data) in data.iter().enumerate() {
                        load(tile, data);
                        std::thread::yield_now();
                    }
                    for (tile, data) in data.iter().enumerate() {
                        assert_eq!(store(tile), inside(data, shape));
                    }
                    zero(thread);
                    assert_eq!(store(thread), [0; 1024]);
                    assert_eq!(store_config(), config);
                    release();
                }
            });
        }
    });
}

/// The handler runs between two instructions of the program, whose other registers and flags
/// stay as they are.
#[test]
fn other_registers_and_flags_stay() {
    load_config(&config(&[(16, 64); 8]));
    let data = Random(1).tile();
    let vector: [f32; 4] = [1.5, -2.5, 3.5, f32::MIN_POSITIVE];
    let (mut after, mut carry, mut general) = ([0.0f32; 4], 0u8, 7u64);
    // SAFETY: the operands are as large as the instructions take them to be.
    unsafe {
        asm!(
            "movups xmm3, [{v}]",
            "stc",
            "tileloadd tmm0, [{p} + {s}]",
            "tileloadd tmm1, [{p} + {s}]",
            "tdpbf16ps tmm2, tmm1, tmm0",
            "setc {carry}",
            "movups [{after}], xmm3",
            "add {general}, 1",
            v = in(reg) &vector, after = in(reg) &mut after, p = in(reg) &data,
            s = in(reg) 64usize, carry = inout(reg_byte) carry, general = inout(reg) general,
            out("xmm3") _, options(nostack),
        );
    }
    assert_eq!(after.map(f32::to_bits), vector.map(f32::to_bits));
    assert_eq!((carry, general), (1, 8));
    release();
}
