//! `TDPBF16PS`, `TDPBSSD`, `TDPBSUD`, `TDPBUSD`, `TDPBUUD`.

use std::arch::asm;

use crate::asm::{Random, TILE, config, inside, load, load_config, release, store};

/// m, n and k in words, over all extremes.
const SHAPES: [[usize; 3]; 8] = [
    [16, 16, 16],
    [1, 1, 1],
    [5, 3, 7],
    [16, 1, 16],
    [1, 16, 2],
    [15, 16, 1],
    [16, 15, 16],
    [2, 13, 9],
];

/// A product of tiles as a function of `c`, `a`, `b`.
type Product = fn(usize, [&[u8; TILE]; 3]) -> [u8; TILE];

/// The instruction on each of three choices of tiles.
macro_rules! product {
    ($name:ident, $mnemonic:literal) => {
        fn $name(choice: usize, [c, a, b]: [&[u8; TILE]; 3]) -> [u8; TILE] {
            let tiles = [[0, 1, 2], [7, 3, 5], [2, 6, 0]][choice];
            for (tile, data) in tiles.into_iter().zip([c, a, b]) {
                load(tile, data);
            }
            // SAFETY: changes a tile only.
            unsafe {
                match choice {
                    0 => asm!(concat!($mnemonic, " tmm0, tmm1, tmm2"), options(nostack)),
                    1 => asm!(concat!($mnemonic, " tmm7, tmm3, tmm5"), options(nostack)),
                    _ => asm!(concat!($mnemonic, " tmm2, tmm6, tmm0"), options(nostack)),
                }
            }
            for (tile, data) in tiles.into_iter().zip([c, a, b]).skip(1) {
                let (rows, row_bytes) = shape_of(tile);
                assert_eq!(store(tile), inside(data, (rows, row_bytes)));
            }
            store(tiles[0])
        }
    };
}

product!(tdpbf16ps, "tdpbf16ps");
product!(tdpbssd, "tdpbssd");
product!(tdpbsud, "tdpbsud");
product!(tdpbusd, "tdpbusd");
product!(tdpbuud, "tdpbuud");

fn shape_of(tile: usize) -> (usize, usize) {
    let config = crate::asm::store_config();
    (config[48 + tile].into(), config[16 + 2 * tile].into())
}

fn configure(choice: usize, [m, n, k]: [usize; 3]) {
    let mut shapes = [(0, 0); 8];
    let tiles = [[0, 1, 2], [7, 3, 5], [2, 6, 0]][choice];
    for (tile, shape) in tiles.into_iter().zip([(m, 4 * n), (m, 4 * k), (k, 4 * n)]) {
        shapes[tile] = shape;
    }
    load_config(&config(&shapes));
}

/// Compares an instruction with a function of `c`, a row of words of `a` and a column of `b`.
#[track_caller]
fn check(
    product: Product,
    seed: u64,
    draw: fn(&mut Random) -> [u8; 4],
    of: fn(Word, &[[Word; 2]]) -> Word,
) {
    let mut random = Random(seed);
    for shape in SHAPES {
        let [m, n, k] = shape;
        for choice in 0..3 {
            configure(choice, shape);
            let mut tile = || {
                let mut tile = [0; TILE];
                for word in tile.as_chunks_mut().0 {
                    *word = draw(&mut random);
                }
                tile
            };
            let (c, a, b) = (tile(), tile(), tile());
            let word = |tile: &[u8; TILE], row, column| tile.as_chunks::<4>().0[16 * row + column];
            let mut expected = [0; TILE];
            for i in 0..m {
                for j in 0..n {
                    let terms: Vec<_> = (0..k).map(|l| [word(&a, i, l), word(&b, l, j)]).collect();
                    expected.as_chunks_mut().0[16 * i + j] = of(word(&c, i, j), &terms);
                }
            }
            let found = product(choice, [&c, &a, &b]);
            assert_eq!(found, expected, "{shape:?}, tiles {choice}");
            release();
        }
    }
}

type Word = [u8; 4];

fn bytes(random: &mut Random) -> Word {
    (random.next() as u32).to_le_bytes()
}

/// Mostly the largest and smallest values, so that sums leave the range of 32 bits.
fn extremes(random: &mut Random) -> Word {
    std::array::from_fn(|_| [0, 127, 128, 255, 1][random.below(5)])
}

#[track_caller]
fn check_int8(product: Product, of: fn(Word, &[[Word; 2]]) -> Word) {
    check(product, 11, bytes, of);
    check(product, 12, extremes, of);
}

/// The sum in 64 bits, of which the low 32 count.
fn sum(c: Word, terms: &[[Word; 2]], of: fn(u8, u8) -> i64) -> Word {
    let mut sum = i64::from(i32::from_le_bytes(c));
    for [a, b] in terms {
        sum += a.iter().zip(b).map(|(&a, &b)| of(a, b)).sum::<i64>();
    }
    (sum as i32).to_le_bytes()
}

fn signed(x: u8) -> i64 {
    i64::from(x.cast_signed())
}

#[test]
fn signed_by_signed() {
    check_int8(tdpbssd, |c, terms| {
        sum(c, terms, |a, b| signed(a) * signed(b))
    });
}

#[test]
fn signed_by_unsigned() {
    check_int8(tdpbsud, |c, terms| {
        sum(c, terms, |a, b| signed(a) * i64::from(b))
    });
}

#[test]
fn unsigned_by_signed() {
    check_int8(tdpbusd, |c, terms| {
        sum(c, terms, |a, b| i64::from(a) * signed(b))
    });
}

#[test]
fn unsigned_by_unsigned() {
    check_int8(tdpbuud, |c, terms| {
        sum(c, terms, |a, b| i64::from(a) * i64::from(b))
    });
}

/// Normal values of about one.
fn ones(random: &mut Random) -> Word {
    let mut word = bytes(random);
    for exponent in [1, 3] {
        word[exponent] = word[exponent] & 0x80 | 0x3f;
    }
    word
}

/// Values of all magnitudes, none of them infinite or NaN.
fn magnitudes(random: &mut Random) -> Word {
    let mut word = bytes(random);
    for exponent in [1, 3] {
        if word[exponent] & 0x7f == 0x7f {
            word[exponent] ^= 0x40;
        }
    }
    word
}

/// Zeros, subnormal numbers, and normal ones whose products are about as small as a number can be.
fn small(random: &mut Random) -> Word {
    let mut word = bytes(random);
    for exponent in [1, 3] {
        word[exponent] = word[exponent] & 0x80 | [0x00, 0x1f, 0x20, 0x01][random.below(4)];
    }
    word
}

fn normal_or_zero(x: f32) -> f32 {
    if x.is_normal() || !x.is_finite() {
        x
    } else {
        0.0f32.copysign(x)
    }
}

/// The documented order: two sums over k, each step rounded once, then both together, then `c`.
fn bf16_sum(c: Word, terms: &[[Word; 2]]) -> Word {
    let value = |word: Word, half: usize| {
        normal_or_zero(f32::from_le_bytes([
            0,
            0,
            word[2 * half],
            word[2 * half + 1],
        ]))
    };
    let mut sums = [0.0f32; 2];
    for (half, sum) in sums.iter_mut().enumerate() {
        for &[a, b] in terms {
            *sum = normal_or_zero(value(a, half).mul_add(value(b, half), *sum));
        }
    }
    let both = normal_or_zero(sums[0] + sums[1]);
    let sum = normal_or_zero(normal_or_zero(f32::from_le_bytes(c)) + both);
    one_nan(sum).to_le_bytes()
}

/// The instruction, with one bit pattern for every NaN: which one it gives depends on more than the
/// formula.
fn bf16(choice: usize, tiles: [&[u8; TILE]; 3]) -> [u8; TILE] {
    let mut tile = tdpbf16ps(choice, tiles);
    for word in tile.as_chunks_mut().0 {
        *word = one_nan(f32::from_le_bytes(*word)).to_le_bytes();
    }
    tile
}

fn one_nan(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x }
}

#[test]
fn bf16_of_about_one() {
    check(bf16, 13, ones, bf16_sum);
}

#[test]
fn bf16_of_all_magnitudes() {
    check(bf16, 14, magnitudes, bf16_sum);
}

#[test]
fn bf16_of_subnormals() {
    check(bf16, 15, small, bf16_sum);
}

/// Numbers for which every other order or rounding gives another result.
#[test]
fn bf16_in_the_documented_order() {
    // Two pairs of k, one element: a row of `a` times a column of `b`.
    #[track_caller]
    fn check(c: f32, a: [[f32; 2]; 2], b: [[f32; 2]; 2], expected: f32) {
        configure(0, [1, 1, 2]);
        let pair = |[even, odd]: [f32; 2]| (even.to_bits() >> 16) | (odd.to_bits() & 0xffff_0000);
        let (mut c_tile, mut a_tile, mut b_tile) = ([0; TILE], [0; TILE], [0; TILE]);
        c_tile[..4].copy_from_slice(&c.to_le_bytes());
        for k in 0..2 {
            a_tile[4 * k..][..4].copy_from_slice(&pair(a[k]).to_le_bytes());
            b_tile[64 * k..][..4].copy_from_slice(&pair(b[k]).to_le_bytes());
        }
        let found = tdpbf16ps(0, [&c_tile, &a_tile, &b_tile]);
        assert_eq!(found[..4], expected.to_le_bytes());
        release();
    }
    let big = 2.0f32.powi(24);
    // Even values and odd ones are summed apart: both ones are kept, in the odd sum.
    check(0.0, [[big, 1.0], [0.0, 1.0]], [[1.0; 2]; 2], big + 2.0);
    // Even ones alone are lost one by one.
    check(0.0, [[big, 0.0], [1.0, 0.0]], [[1.0; 2]; 2], big);
    // `c` comes last: with it first, the one would be lost before big is taken away.
    check(big, [[1.0, -big], [1.0, 0.0]], [[1.0; 2]; 2], 2.0);
    check(1.0, [[big, -big], [0.0, 0.0]], [[1.0; 2]; 2], 1.0);
    // A step is fused: (1 + 2^-7)^2 has 15 bits; its last one survives at 2^10 only so.
    let x = 1.0 + 2.0f32.powi(-7);
    check(
        0.0,
        [[1.0, 0.0], [x, 0.0]],
        [[1.0, 0.0], [x, 0.0]],
        x.mul_add(x, 1.0),
    );
}
