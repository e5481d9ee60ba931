//! Encodings, as an assembler makes them.

use super::{Address, Base, Op, decode};
use crate::dot::Product;

/// The bytes are an instruction of just this length; nothing behind them is looked at.
#[track_caller]
fn check(code: &[u8], op: Op) {
    let instruction = decode(|at| code[at]).expect("an AMX instruction");
    assert_eq!(instruction.op, op);
    assert_eq!(instruction.len, code.len());
}

#[track_caller]
fn check_none(code: &[u8]) {
    assert_eq!(decode(|at| code[at]), None);
}

fn address(base: Base, index: Option<usize>, scale: u8, displacement: i32) -> Address {
    Address {
        base,
        index,
        scale,
        displacement,
    }
}

#[test]
fn configuration_and_zero() {
    let rax = address(Base::Register(0), None, 0, 0);
    check(&[0xc4, 0xe2, 0x78, 0x49, 0x00], Op::LoadConfig(rax));
    check(&[0xc4, 0xe2, 0x79, 0x49, 0x00], Op::StoreConfig(rax));
    // ldtilecfg [rip + 0x10]
    check(
        &[0xc4, 0xe2, 0x78, 0x49, 0x05, 0x10, 0, 0, 0],
        Op::LoadConfig(address(Base::Next, None, 0, 16)),
    );
    // sttilecfg [r13 + r12*8 - 2]
    check(
        &[0xc4, 0x82, 0x79, 0x49, 0x44, 0xe5, 0xfe],
        Op::StoreConfig(address(Base::Register(13), Some(12), 3, -2)),
    );
    check(&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Op::Release);
    check(&[0xc4, 0xe2, 0x7b, 0x49, 0xf8], Op::Zero(7));
}

#[test]
fn loads_and_stores() {
    let rdi_rsi = address(Base::Register(7), Some(6), 0, 0);
    check(&[0xc4, 0xe2, 0x7b, 0x4b, 0x14, 0x37], Op::Load(2, rdi_rsi));
    check(&[0xc4, 0xe2, 0x79, 0x4b, 0x14, 0x37], Op::Load(2, rdi_rsi));
    check(&[0xc4, 0xe2, 0x7a, 0x4b, 0x14, 0x37], Op::Store(2, rdi_rsi));
    // tileloadd tmm1, [rsp + r15*2 + 0x12345678]
    check(
        &[0xc4, 0xa2, 0x7b, 0x4b, 0x8c, 0x7c, 0x78, 0x56, 0x34, 0x12],
        Op::Load(1, address(Base::Register(4), Some(15), 1, 0x1234_5678)),
    );
    // tileloadd tmm0, [r12 + riz]: no index
    check(
        &[0xc4, 0xc2, 0x7b, 0x4b, 0x04, 0x24],
        Op::Load(0, address(Base::Register(12), None, 0, 0)),
    );
    // tileloadd tmm0, [rcx*4 + 0x40]: no base
    check(
        &[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x8d, 0x40, 0, 0, 0],
        Op::Load(0, address(Base::Zero, Some(1), 2, 64)),
    );
}

#[test]
fn products() {
    // The operands are tmm3, tmm4, tmm5.
    let tiles = [3, 4, 5];
    for (code, product) in [
        ([0xc4, 0xe2, 0x52, 0x5c, 0xdc], Product::Bf16),
        ([0xc4, 0xe2, 0x53, 0x5e, 0xdc], Product::I8I8),
        ([0xc4, 0xe2, 0x52, 0x5e, 0xdc], Product::I8U8),
        ([0xc4, 0xe2, 0x51, 0x5e, 0xdc], Product::U8I8),
        ([0xc4, 0xe2, 0x50, 0x5e, 0xdc], Product::U8U8),
    ] {
        check(&code, Op::Dot(product, tiles));
    }
}

#[test]
fn what_is_not_amx_or_not_allowed() {
    for code in [
        &[0x0f, 0x0b][..],
        &[0xc5, 0xf8, 0x77],
        // Map 0F3A, W, 256 bits.
        &[0xc4, 0xe3, 0x78, 0x49, 0xc0],
        &[0xc4, 0xe2, 0xf8, 0x49, 0xc0],
        &[0xc4, 0xe2, 0x7c, 0x49, 0xc0],
        // Opcodes and prefixes that name nothing.
        &[0xc4, 0xe2, 0x78, 0x4a, 0xc0],
        &[0xc4, 0xe2, 0x79, 0x49, 0xc0],
        &[0xc4, 0xe2, 0x78, 0x49, 0xc8],
        &[0xc4, 0xe2, 0x7b, 0x49, 0xc1],
        &[0xc4, 0xe2, 0x7b, 0x49, 0x00],
        &[0xc4, 0xe2, 0x78, 0x4b, 0x14, 0x37],
        &[0xc4, 0xe2, 0x51, 0x5c, 0xdc],
        // A third operand where there is none.
        &[0xc4, 0xe2, 0x70, 0x49, 0xc0],
        &[0xc4, 0xe2, 0x73, 0x4b, 0x14, 0x37],
        // No SIB byte; a register for memory, memory for a register.
        &[0xc4, 0xe2, 0x7b, 0x4b, 0x10],
        &[0xc4, 0xe2, 0x7b, 0x4b, 0xd4],
        &[0xc4, 0xe2, 0x52, 0x5c, 0x1c, 0x24],
        // Tiles above 7.
        &[0xc4, 0x62, 0x7b, 0x4b, 0x14, 0x37],
        &[0xc4, 0x62, 0x52, 0x5c, 0xdc],
        &[0xc4, 0xc2, 0x52, 0x5c, 0xdc],
        &[0xc4, 0xe2, 0x12, 0x5c, 0xdc],
    ] {
        check_none(code);
    }
}

#[test]
fn addresses() {
    let mut registers = [0; 16];
    registers[3] = 1000;
    registers[9] = 0u64.wrapping_sub(5);
    let form = address(Base::Register(3), Some(9), 2, -8);
    assert_eq!(form.start(&registers, 0), 992);
    assert_eq!(form.stride(&registers), 0u64.wrapping_sub(20));
    let form = address(Base::Next, None, 0, 8);
    assert_eq!(
        (form.start(&registers, 100), form.stride(&registers)),
        (108, 0)
    );
}
