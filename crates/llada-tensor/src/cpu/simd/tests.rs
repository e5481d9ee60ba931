//! Tests of the vector primitives at every level that the machine has.

use super::*;

struct ExpOf<'a>(&'a mut [f32]);

impl Kernel for ExpOf<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.0.len()).step_by(S::LANES) {
            let y = s.exp(s.load(&self.0[at..], 0.0));
            s.store(&mut self.0[at..], y);
        }
    }
}

#[test]
fn exp_is_accurate_to_a_few_units_in_the_last_place() {
    for level in CpuLevel::available() {
        let inputs: Vec<f32> = (-8700..8800).map(|i| i as f32 * 0.01).collect();
        let mut outputs = inputs.clone();
        level.run(ExpOf(&mut outputs));
        for (&x, &y) in inputs.iter().zip(&outputs) {
            let exact = f64::from(x).exp();
            let error = (f64::from(y) - exact).abs() / exact;
            assert!(
                error < 4e-7,
                "{level:?}: exp({x}) = {y}, relative error {error:e}"
            );
        }
    }
}

#[test]
fn exp_of_extremes() {
    for level in CpuLevel::available() {
        let mut x = [f32::NEG_INFINITY, -200.0, 0.0, f32::NAN];
        level.run(ExpOf(&mut x));
        assert!(
            x[0] < 1e-37 && x[1] < 1e-37 && (x[2] - 1.0).abs() < f32::EPSILON && x[3].is_nan(),
            "{level:?}: {x:?}"
        );
    }
}

struct Reduce<'a>(&'a [f32]);

impl Kernel for Reduce<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let (mut sum, mut max) = (s.splat(0.0), s.splat(f32::NEG_INFINITY));
        for at in (0..self.0.len()).step_by(S::LANES) {
            sum = s.add(sum, s.load(&self.0[at..], 0.0));
            max = s.max(max, s.load(&self.0[at..], f32::NEG_INFINITY));
        }
        (s.sum(sum), s.max_lane(max))
    }
}

#[test]
fn reductions_take_every_lane_and_no_more() {
    for level in CpuLevel::available() {
        for n in 1..70u8 {
            let x: Vec<f32> = (0..n).map(|i| -f32::from(i) - 1.0).collect();
            let n = f32::from(n);
            assert_eq!(
                level.run(Reduce(&x)),
                (-n * (n + 1.0) / 2.0, -1.0),
                "{level:?} {n}"
            );
        }
    }
}

struct ToBf16<'a>(&'a [f32], &'a mut [bf16], &'a mut [f32]);

impl Kernel for ToBf16<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.0.len()).step_by(S::LANES) {
            s.store_bf16(&mut self.1[at..], s.load(&self.0[at..], 0.0));
            s.store(&mut self.2[at..], s.load_bf16(&self.1[at..]));
        }
    }
}

#[test]
fn bf16_is_rounded_to_the_nearest_ties_to_even_and_widened_again() {
    // Every upper half: numbers of any size, infinities and NaN; lower halves around a tie.
    let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let bits = (0..=0xffff_u32).flat_map(|upper| lower.map(|lower| upper << 16 | lower));
    let x: Vec<f32> = bits.map(f32::from_bits).collect();
    for level in CpuLevel::available() {
        // The odd length ends inside a vector.
        for x in [&x[..], &x[..x.len() - 5]] {
            let (mut y, mut wide) = (vec![bf16::ZERO; x.len()], vec![0.0; x.len()]);
            level.run(ToBf16(x, &mut y, &mut wide));
            for ((x, y), wide) in x.iter().zip(&y).zip(&wide) {
                let (expected, name) = (bf16::from_f32(*x), format!("{level:?}: {x:e}"));
                assert_eq!(y.to_bits(), expected.to_bits(), "{name}");
                assert_eq!(wide.to_bits(), expected.to_f32().to_bits(), "{name}");
            }
        }
    }
}
