//! `LDTILECFG`, `STTILECFG`, `TILERELEASE`, `TILEZERO`.

use std::arch::asm;

use crate::asm::{
    Random, config, inside, load, load_config, release, start, store, store_config, zero,
};

const RAGGED: [(usize, usize); 8] = [
    (1, 4),
    (16, 64),
    (3, 60),
    (0, 0),
    (15, 8),
    (7, 36),
    (16, 4),
    (1, 64),
];

#[test]
fn a_configuration_is_read_back_until_it_is_released() {
    let mut ragged = config(&RAGGED);
    // Rows need not be whole words until they are used.
    ragged[16] = 3;
    for config in [config(&[]), config(&[(16, 64); 8]), ragged] {
        load_config(&config);
        assert_eq!(store_config(), config);
        release();
        assert_eq!(store_config(), [0; 64]);
    }
}

#[test]
fn palette_zero_releases() {
    load_config(&config(&RAGGED));
    // What else stands in it is not looked at.
    let mut none = [7; 64];
    none[0] = 0;
    load_config(&none);
    assert_eq!(store_config(), [0; 64]);
}

/// What a thread begins with is the system's affair: Linux hands it the configuration of the thread that
/// made it, on a processor with AMX.
#[test]
fn a_configuration_is_of_its_thread() {
    let (own, of_other) = (config(&RAGGED), config(&[(16, 64); 8]));
    load_config(&own);
    let other = std::thread::spawn(move || {
        load_config(&of_other);
        let loaded = store_config();
        release();
        (loaded, store_config())
    });
    let other = other.join().expect("no panic");
    assert_eq!(other, (of_other, [0; 64]));
    assert_eq!(store_config(), own);
    release();
}

#[test]
fn a_configuration_clears_the_tiles() {
    let full = config(&[(16, 64); 8]);
    load_config(&full);
    let data = Random(1).tile();
    load(3, &data);
    assert_eq!(store(3), data);
    load_config(&full);
    assert_eq!(store(3), [0; 1024]);
    release();
}

#[test]
fn zero_clears_one_tile() {
    load_config(&config(&[(16, 64); 8]));
    let mut random = Random(2);
    let data: Vec<_> = (0..8).map(|_| random.tile()).collect();
    for zeroed in 0..8 {
        for (tile, data) in data.iter().enumerate() {
            load(tile, data);
        }
        zero(zeroed);
        for (tile, data) in data.iter().enumerate() {
            let expected = if tile == zeroed { [0; 1024] } else { *data };
            assert_eq!(store(tile), expected);
        }
    }
    release();
}

#[test]
fn tiles_keep_to_their_shapes() {
    load_config(&config(&RAGGED));
    let mut random = Random(3);
    for (tile, &shape) in RAGGED.iter().enumerate().filter(|(_, shape)| shape.0 > 0) {
        let data = random.tile();
        load(tile, &data);
        assert_eq!(store(tile), inside(&data, shape));
    }
    release();
}

/// A configuration in the program's constants is addressed from the next instruction.
#[test]
fn a_configuration_relative_to_the_instruction() {
    static CONFIG: [u8; 64] = {
        let mut config = [0; 64];
        config[0] = 1;
        config[16] = 12;
        config[48] = 5;
        config
    };
    start();
    // SAFETY: AMX instructions work; the operand has 64 bytes.
    unsafe { asm!("ldtilecfg [rip + {}]", sym CONFIG, options(nostack)) };
    assert_eq!(store_config(), CONFIG);
    release();
}

/// `LDTILECFG` and `STTILECFG` have ordinary operands: here the index counts once.
#[test]
fn a_configuration_with_an_index() {
    start();
    let expected = config(&RAGGED);
    let mut room = [0u8; 256];
    room[64..128].copy_from_slice(&expected);
    // SAFETY: both operands are 64 bytes inside of the array.
    unsafe {
        asm!(
            "ldtilecfg [{p} + {i}*8 + 16]",
            "sttilecfg [{p} + {i}*2 + 138]",
            p = in(reg) &mut room, i = in(reg) 6usize, options(nostack),
        );
    }
    assert_eq!(room[150..214], expected);
    release();
}
