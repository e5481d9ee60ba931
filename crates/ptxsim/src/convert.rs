//! Conversions between number types, a lane at a time, and the common ones for all lanes.

use crate::alu::{from_half, to_half};
use crate::inst::{HalfType, Num, Rounding};

/// A number between two conversions.
#[derive(Debug, Clone, Copy)]
enum Value {
    Integer(i128),
    Float(f64),
}

fn read(from: Num, bits: u64) -> Value {
    match from {
        Num::U8 => Value::Integer(i128::from(bits as u8)),
        Num::U16 => Value::Integer(i128::from(bits as u16)),
        Num::U32 => Value::Integer(i128::from(bits as u32)),
        Num::U64 => Value::Integer(i128::from(bits)),
        Num::S8 => Value::Integer(i128::from(bits as i8)),
        Num::S16 => Value::Integer(i128::from(bits as i16)),
        Num::S32 => Value::Integer(i128::from(bits as i32)),
        Num::S64 => Value::Integer(i128::from(bits as i64)),
        Num::F16 => Value::Float(from_half(HalfType::F16, bits as u32 & 0xffff).into()),
        Num::Bf16 => Value::Float(from_half(HalfType::Bf16, bits as u32 & 0xffff).into()),
        Num::F32 => Value::Float(f32::from_bits(bits as u32).into()),
        Num::F64 => Value::Float(f64::from_bits(bits)),
    }
}

fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Near => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// An `f64` as `f32`, rounded in a direction.
fn narrow(x: f64, rounding: Rounding) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    match rounding {
        Rounding::Down if back > x => near.next_down(),
        Rounding::Up if back < x => near.next_up(),
        Rounding::Zero if back.abs() > x.abs() => {
            if x > 0.0 {
                near.next_down()
            } else {
                near.next_up()
            }
        }
        _ => near,
    }
}

/// A 16-bit float of an `f64`: through `f32`, which is exact for the sources that have it.
fn half(kind: HalfType, x: f64, rounding: Rounding) -> u64 {
    let bits = to_half(kind, x as f32);
    let back = f64::from(from_half(kind, bits));
    let away = match rounding {
        Rounding::Near => false,
        Rounding::Zero => back.abs() > x.abs(),
        Rounding::Down => back > x,
        Rounding::Up => back < x,
    };
    // One unit nearer to zero, or further where zero is the wrong side.
    let toward_zero = back.abs() > x.abs();
    u64::from(match (away, toward_zero) {
        (false, _) => bits,
        (true, true) => bits - 1,
        (true, false) => bits + 1,
    })
}

fn write_integer(to: Num, x: i128, saturate: bool) -> u64 {
    let (low, high): (i128, i128) = match to {
        Num::U8 => (0, u8::MAX.into()),
        Num::U16 => (0, u16::MAX.into()),
        Num::U32 => (0, u32::MAX.into()),
        Num::U64 => (0, u64::MAX.into()),
        Num::S8 => (i8::MIN.into(), i8::MAX.into()),
        Num::S16 => (i16::MIN.into(), i16::MAX.into()),
        Num::S32 => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    let x = if saturate { x.clamp(low, high) } else { x };
    // Sign-extended: a register that is wider than the type holds it so.
    match to {
        Num::U8 => u64::from(x as u8),
        Num::U16 => u64::from(x as u16),
        Num::U32 => u64::from(x as u32),
        Num::S8 => i64::from(x as i8) as u64,
        Num::S16 => i64::from(x as i16) as u64,
        Num::S32 => i64::from(x as i32) as u64,
        _ => x as u64,
    }
}

/// How a conversion is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conversion {
    pub(crate) from: Num,
    pub(crate) to: Num,
    pub(crate) rounding: Rounding,
    pub(crate) integral: bool,
    pub(crate) saturate: bool,
    pub(crate) relu: bool,
}

/// Converts the bits of one number.
pub(crate) fn convert(c: Conversion, bits: u64) -> u64 {
    let value = read(c.from, bits);
    let is_integer = |num: Num| !matches!(num, Num::F16 | Num::Bf16 | Num::F32 | Num::F64);
    if is_integer(c.to) {
        return match value {
            Value::Integer(x) => write_integer(c.to, x, c.saturate),
            // Floats that do not fit become the nearest that does; NaN becomes 0, but the
            // largest of 64 bits (and of u32 by hardware: left at 0, which nvcc never asks for).
            Value::Float(x) if x.is_nan() => 0,
            Value::Float(x) => write_integer(c.to, integral(x, c.rounding) as i128, true),
        };
    }
    let exact = match value {
        // Rounded once: 128 bits to the type itself.
        Value::Integer(x) if c.to == Num::F32 && c.rounding == Rounding::Near => {
            return u64::from((x as f32).to_bits());
        }
        Value::Integer(x) => x as f64,
        Value::Float(x) if c.integral => integral(x, c.rounding),
        Value::Float(x) => x,
    };
    let exact = match (c.saturate, c.relu) {
        (true, _) if exact.is_nan() => 0.0,
        (true, _) => exact.clamp(0.0, 1.0),
        (_, true) if exact < 0.0 => 0.0,
        _ => exact,
    };
    match c.to {
        Num::F16 => half(HalfType::F16, exact, c.rounding),
        Num::Bf16 => half(HalfType::Bf16, exact, c.rounding),
        Num::F32 => u64::from(narrow(exact, c.rounding).to_bits()),
        _ => exact.to_bits(),
    }
}
