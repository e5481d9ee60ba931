use super::{bf16_of, f16_of, from_bf16, from_f16, to_bf16};
use crate::isa::Round;

#[test]
fn every_half_widens_as_the_half_crate_does() {
    for bits in 0..=u16::MAX {
        let (f, b) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
        let (got_f, got_b) = (from_f16(u32::from(bits)), from_bf16(u32::from(bits)));
        if f.is_nan() {
            assert!(got_f.is_nan());
        } else {
            assert_eq!(got_f.to_bits(), f.to_f32().to_bits());
        }
        if b.is_nan() {
            assert!(got_b.is_nan());
        } else {
            assert_eq!(got_b.to_bits(), b.to_f32().to_bits());
        }
    }
}

#[test]
fn singles_round_to_the_nearest_half() {
    for i in 0..2_000_000_u32 {
        let x = f32::from_bits(i.wrapping_mul(2_654_435_761));
        if x.is_nan() {
            continue;
        }
        assert_eq!(
            to_bf16(x),
            u32::from(half::bf16::from_f32(x).to_bits()),
            "{x:e}"
        );
        let wide = f64::from(x);
        assert_eq!(
            bf16_of(wide, Round::Nearest),
            u32::from(half::bf16::from_f32(x).to_bits()),
            "{x:e}"
        );
        assert_eq!(
            f16_of(wide, Round::Nearest),
            u32::from(half::f16::from_f32(x).to_bits()),
            "{x:e}"
        );
    }
}

#[test]
fn directed_rounding_stays_on_its_side() {
    for i in 0..200_000_u32 {
        let x = f64::from(f32::from_bits(i.wrapping_mul(2_654_435_761)));
        if x.is_nan() || x.abs() > 60_000.0 {
            continue;
        }
        let value = |round| f64::from(from_f16(f16_of(x, round)));
        assert!(value(Round::Down) <= x && x <= value(Round::Up), "{x:e}");
        assert!(value(Round::Zero).abs() <= x.abs(), "{x:e}");
    }
}
