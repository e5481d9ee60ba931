//! Every kernel gives the bits of the scalar one.

use super::quads::{Quads, block_quads};
use super::*;

/// [`Quads`] without instructions.
#[derive(Clone, Copy)]
struct Emulated;

#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "each is what the trait asks its caller for"
)]
impl Quads for Emulated {
    type Sums = [i32; 16];
    type Values = [f32; 16];
    type Codes = [[u8; 4]; 16];
    unsafe fn load(self, at: *const f32) -> [f32; 16] {
        unsafe { at.cast::<[f32; 16]>().read_unaligned() }
    }
    unsafe fn store(self, at: *mut f32, x: [f32; 16]) {
        unsafe { at.cast::<[f32; 16]>().write_unaligned(x) }
    }
    unsafe fn load_codes(self, at: *const u8, is_signed: bool) -> [[u8; 4]; 16] {
        let codes = unsafe { at.cast::<[[u8; 4]; 16]>().read_unaligned() };
        match is_signed {
            true => codes.map(|codes| codes.map(|code| code ^ 128)),
            false => codes,
        }
    }
    unsafe fn add(self, mut sums: [i32; 16], codes: [[u8; 4]; 16], left: i32) -> [i32; 16] {
        for (sum, codes) in sums.iter_mut().zip(codes) {
            for (code, left) in codes.into_iter().zip(left.to_le_bytes()) {
                *sum += i32::from(code) * i32::from(left.cast_signed());
            }
        }
        sums
    }
    unsafe fn splat(self, sum: i32) -> [i32; 16] {
        [sum; 16]
    }
    unsafe fn scaled(
        self,
        sums: [i32; 16],
        scales: [f32; 16],
        left: f32,
        c: [f32; 16],
    ) -> [f32; 16] {
        std::array::from_fn(|i| (sums[i] as f32 * scales[i]).mul_add(left, c[i]))
    }
    unsafe fn fma(self, a: [f32; 16], b: f32, c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b, c[i]))
    }
}

fn block(kernel: BlockKernel, x: &Operands<'_>, rows: usize, c: &mut [f32; BLOCK]) {
    BlockProducts::new(kernel, x.group).block(x, rows, c);
}

type Product = fn(&Operands<'_>, usize, &mut [f32; BLOCK]);

/// The kernels that this machine has, and the loops of the others; whether each takes signed codes in
/// place of an offset.
fn kernels() -> Vec<(&'static str, bool, Product)> {
    let mut kernels: Vec<(&'static str, bool, Product)> = vec![
        // SAFETY: the emulation needs no instructions, and `check` has looked at the operands.
        ("emulated", true, |x, rows, c| unsafe {
            block_quads(Emulated, x, rows, c);
        }),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        let has_vnni = crate::cpu::simd::has_avx512() && is_x86_feature_detected!("avx512vnni");
        if crate::cpu::simd::has_avx2() {
            kernels.push(("avx2", false, |x, rows, c| {
                block(BlockKernel::Avx2, x, rows, c);
            }));
        }
        if has_vnni {
            kernels.push(("vnni", true, |x, rows, c| {
                block(BlockKernel::Vnni, x, rows, c);
            }));
        }
        if has_vnni && amx::has_amx() && amx::has_int8() {
            kernels.push(("amx", true, |x, rows, c| {
                block(BlockKernel::Amx, x, rows, c);
            }));
        }
    }
    kernels
}

/// Numbers that look random, and all extremes.
fn bytes(n: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| match i % 5 {
        0 => [0, 127, 128, 129, 255][i / 5 % 5],
        _ => ((i + seed) * (i + 77) % 8191 % 256) as u8,
    };
    (0..n).map(byte).collect()
}

fn floats(n: usize, seed: usize) -> Vec<f32> {
    let values = bytes(n, seed);
    values
        .iter()
        .map(|&x| (f32::from(x) - 99.7) / 37.0)
        .collect()
}

/// Sums of groups of each row, `[group][row]`.
fn integers(left: &[i8], k: usize, group: usize) -> Vec<i32> {
    let sum = |row: usize, at: usize| left[row * k + at * group..][..group].iter();
    let places = (0..k / group).flat_map(|at| (0..WIDTH).map(move |row| (row, at)));
    let sums = places.map(|(row, at)| sum(row, at).map(|&x| i32::from(x)).sum());
    sums.collect()
}

/// The operands as a kernel takes them.
fn taken<'a>(x: &Operands<'a>, signed: &'a [u8], takes_signed: bool) -> Operands<'a> {
    match takes_signed && x.offset > 0 {
        true => Operands {
            codes: Codes::Signed,
            offset: 0,
            right: signed,
            ..*x
        },
        false => *x,
    }
}

fn with_offset_off(codes: &[u8], offset: i32) -> Vec<u8> {
    let offset = u8::try_from(offset).unwrap();
    codes.iter().map(|x| x.wrapping_sub(offset)).collect()
}

#[track_caller]
fn check(codes: Codes, offset: i32, group: usize) {
    const GROUPS: usize = 6;
    let k = GROUPS * group;
    let largest = match codes {
        Codes::UpTo15 => 15,
        Codes::UpTo31 => 31,
        Codes::UpTo63 => 63,
        Codes::Signed => 255,
    };
    let left = bytes(WIDTH * k, 1).into_iter();
    let left: Vec<i8> = left.map(|x| x.cast_signed().max(-127)).collect();
    let right = bytes(WIDTH * k, 5).into_iter();
    let right: Vec<u8> = right.map(|x| x & largest).collect();
    let (left_scales, left_sums) = (floats(WIDTH * k / LEFT_GROUP, 2), floats(WIDTH * GROUPS, 3));
    let (scales, minimums) = (floats(WIDTH * GROUPS, 4), floats(WIDTH * GROUPS, 6));
    let integers = integers(&left, k, group);
    let signed = with_offset_off(&right, offset);
    let x = Operands {
        codes,
        offset,
        group,
        left: (&left, k),
        left_scales: (&left_scales, WIDTH),
        left_sums: (&left_sums, WIDTH),
        left_integers: (&integers, WIDTH),
        right: &right,
        scales: &scales,
        minimums: &minimums,
    };
    for rows in [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 20, 31, 32] {
        let start: [f32; BLOCK] = std::array::from_fn(|i| i as f32);
        let mut expected = start;
        block(BlockKernel::Scalar, &x, rows, &mut expected);
        assert_eq!(expected[rows * WIDTH..], start[rows * WIDTH..]);
        for (name, takes_signed, kernel) in kernels() {
            let mut got = start;
            kernel(&taken(&x, &signed, takes_signed), rows, &mut got);
            let [got, expected] = [&got, &expected].map(|x| x[..rows * WIDTH].iter());
            let is_same = got.map(|x| x.to_bits()).eq(expected.map(|x| x.to_bits()));
            assert!(is_same, "{name} {codes:?} - {offset} {group} {rows}");
        }
    }
}

#[test]
fn kernels_agree() {
    for (codes, offset) in [
        (Codes::UpTo15, 0),
        (Codes::UpTo15, 8),
        (Codes::UpTo31, 0),
        (Codes::UpTo31, 16),
        (Codes::UpTo63, 0),
        (Codes::UpTo63, 32),
        (Codes::Signed, 0),
    ] {
        for group in [16, 32] {
            check(codes, offset, group);
        }
    }
}

#[test]
fn largest_sums_fit() {
    for (codes, offset, code) in [
        (Codes::UpTo15, 8, 15),
        (Codes::UpTo31, 16, 31),
        (Codes::UpTo63, 32, 63),
        (Codes::UpTo15, 8, 0),
        (Codes::UpTo63, 32, 0),
        (Codes::Signed, 0, 128),
    ] {
        for group in [16, 32] {
            let k = 64;
            let (left, right) = (vec![-127; k * WIDTH], vec![code; k * WIDTH]);
            let ones = vec![1.0; k / 16 * WIDTH];
            let value = match codes {
                Codes::Signed => -128,
                _ => i32::from(code) - offset,
            };
            let integers = integers(&left, k, group);
            let signed = with_offset_off(&right, offset);
            let x = Operands {
                codes,
                offset,
                group,
                left: (&left, k),
                left_scales: (&ones, WIDTH),
                left_sums: (&ones, WIDTH),
                left_integers: (&integers, WIDTH),
                right: &right,
                scales: &ones[..k / group * WIDTH],
                minimums: &[],
            };
            let expected = (64 * -127 * value) as f32;
            for (name, takes_signed, kernel) in kernels() {
                let mut got = [0.0; BLOCK];
                kernel(&taken(&x, &signed, takes_signed), 1, &mut got);
                assert_eq!(got[..WIDTH], [expected; WIDTH], "{name} {codes:?} {group}");
            }
        }
    }
}

#[test]
fn rows_become_columns() {
    let kernels = [
        BlockKernel::Scalar,
        #[cfg(target_arch = "x86_64")]
        BlockKernel::of(CpuLevel::best()),
    ];
    for kernel in kernels {
        for [n_rows, width] in [[1, 3], [31, 16], [32, 8], [32, 16], [32, 48], [32, 50]] {
            let rows: Vec<f32> = (0..n_rows * width).map(|i| i as f32 + 1.0).collect();
            let mut out = vec![-1.0; width * WIDTH];
            lay_out(kernel, &rows, width, &mut out);
            for (at, x) in out.iter().enumerate() {
                let (column, row) = (at / WIDTH, at % WIDTH);
                let expected = if row < n_rows {
                    rows[row * width + column]
                } else {
                    0.0
                };
                assert_eq!(
                    x.to_bits(),
                    expected.to_bits(),
                    "{kernel:?} {n_rows} x {width}"
                );
            }
        }
    }
}
