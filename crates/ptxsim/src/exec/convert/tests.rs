use super::{Mode, one};
use crate::isa::{Round, Ty};

#[track_caller]
fn check(x: u64, from: Ty, to: Ty, round: Round, sat: bool, want: u64) {
    let mode = Mode {
        round,
        integer: false,
        sat,
        relu: false,
    };
    assert_eq!(one(x, from, to, mode), want);
}

fn single(x: f32) -> u64 {
    u64::from(x.to_bits())
}

#[test]
fn floats_become_integers() {
    check(single(2.5), Ty::F32, Ty::S32, Round::Nearest, false, 2);
    check(
        single(-2.5),
        Ty::F32,
        Ty::S32,
        Round::Down,
        false,
        u64::from((-3_i32).cast_unsigned()),
    );
    check(single(-2.5), Ty::F32, Ty::U32, Round::Zero, false, 0);
    check(
        single(1e20),
        Ty::F32,
        Ty::S32,
        Round::Zero,
        false,
        0x7fff_ffff,
    );
    check(single(f32::NAN), Ty::F32, Ty::S32, Round::Zero, false, 0);
    check(single(300.7), Ty::F32, Ty::U8, Round::Zero, false, 255);
    check(
        (-1.5_f64).to_bits(),
        Ty::F64,
        Ty::S64,
        Round::Up,
        false,
        (-1_i64).cast_unsigned(),
    );
}

#[test]
fn integers_change_their_width() {
    check(0xff80, Ty::S8, Ty::S32, Round::Nearest, false, 0xffff_ff80);
    check(0x1_ff80, Ty::U16, Ty::U32, Round::Nearest, false, 0xff80);
    check(300, Ty::S32, Ty::U8, Round::Nearest, true, 255);
    check(0xffff_fff0, Ty::S32, Ty::U8, Round::Nearest, true, 0);
    check(0xffff_fff0, Ty::S32, Ty::S16, Round::Nearest, false, 0xfff0);
}

#[test]
fn integers_become_floats() {
    check(
        0x100_0001,
        Ty::U32,
        Ty::F32,
        Round::Nearest,
        false,
        single(16_777_216.0),
    );
    check(
        0x100_0001,
        Ty::U32,
        Ty::F32,
        Round::Up,
        false,
        single(16_777_218.0),
    );
    check(
        u64::MAX,
        Ty::U64,
        Ty::F32,
        Round::Zero,
        false,
        single(f32::from_bits(0x5f7f_ffff)),
    );
    check(
        u64::MAX,
        Ty::S64,
        Ty::F64,
        Round::Nearest,
        false,
        (-1.0_f64).to_bits(),
    );
}

#[test]
fn saturation_clamps_to_the_unit_interval() {
    check(
        single(1.5),
        Ty::F32,
        Ty::F32,
        Round::Nearest,
        true,
        single(1.0),
    );
    check(
        single(-1.5),
        Ty::F32,
        Ty::F32,
        Round::Nearest,
        true,
        single(0.0),
    );
    check(
        single(f32::NAN),
        Ty::F32,
        Ty::F32,
        Round::Nearest,
        true,
        single(0.0),
    );
}
