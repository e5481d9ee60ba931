//! `TILELOADD`, `TILELOADDT1`, `TILESTORED`: strides and addressing forms.

use std::arch::asm;

use crate::asm::{Random, config, load, load_config, release, store};

/// Room for any form; operands begin in its middle.
const ROOM: usize = 8192;
const MIDDLE: usize = 4096;

const SHAPE: (usize, usize) = (5, 12);

fn room(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..ROOM).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// What a tile of [`SHAPE`] holds that was loaded from `start` of the room on.
fn rows(room: &[u8], start: usize, stride: isize) -> [u8; 1024] {
    let mut tile = [0; 1024];
    for row in 0..SHAPE.0 {
        let from = start
            .checked_add_signed(stride * row as isize)
            .expect("inside");
        tile[64 * row..][..SHAPE.1].copy_from_slice(&room[from..][..SHAPE.1]);
    }
    tile
}

/// Loads and stores with an operand, of which `{p}` is the middle of the room and `{s}` is 8.
macro_rules! check {
    ($operand:literal, $start:expr, $stride:expr, $p:tt, $s:tt) => {{
        load_config(&config(&[(16, 64), SHAPE]));
        let mut room = room(1);
        let expected = rows(&room, $start, $stride);
        for t1 in [false, true] {
            load(1, &Random(9).tile());
            // SAFETY: all rows are inside of the room.
            unsafe {
                let p = room.as_ptr().add(MIDDLE);
                if t1 {
                    asm!(concat!("tileloaddt1 tmm1, [", $operand, "]"),
                        in($p) p, in($s) 8usize, options(nostack));
                } else {
                    asm!(concat!("tileloadd tmm1, [", $operand, "]"),
                        in($p) p, in($s) 8usize, options(nostack));
                }
            }
            assert_eq!(store(1), expected, $operand);
        }
        let data = Random(5).tile();
        load(1, &data);
        let mut expected = room.clone();
        for row in 0..SHAPE.0 {
            let stride: isize = $stride;
            let to = ($start as usize).checked_add_signed(stride * row as isize).expect("inside");
            expected[to..][..SHAPE.1].copy_from_slice(&data[64 * row..][..SHAPE.1]);
        }
        // SAFETY: all rows are inside of the room.
        unsafe {
            let p = room.as_mut_ptr().add(MIDDLE);
            asm!(concat!("tilestored [", $operand, "], tmm1"),
                in($p) p, in($s) 8usize, options(nostack));
        }
        assert!(room == expected, $operand);
        release();
    }};
}

#[test]
fn every_base_register() {
    check!("rax + rcx*2", MIDDLE, 16, "rax", "rcx");
    check!("rcx + rax*2", MIDDLE, 16, "rcx", "rax");
    check!("rdx + rax*2", MIDDLE, 16, "rdx", "rax");
    check!("rsi + rax*2", MIDDLE, 16, "rsi", "rax");
    check!("rdi + rax*2", MIDDLE, 16, "rdi", "rax");
    check!("r8 + rax*2", MIDDLE, 16, "r8", "rax");
    check!("r9 + rax*2", MIDDLE, 16, "r9", "rax");
    check!("r10 + rax*2", MIDDLE, 16, "r10", "rax");
    check!("r11 + rax*2", MIDDLE, 16, "r11", "rax");
    check!("r12 + rax*2", MIDDLE, 16, "r12", "rax");
    check!("r13 + rax*2", MIDDLE, 16, "r13", "rax");
    check!("r14 + rax*2", MIDDLE, 16, "r14", "rax");
    check!("r15 + rax*2", MIDDLE, 16, "r15", "rax");
}

#[test]
fn every_index_register() {
    check!("rax + rdx*4", MIDDLE, 32, "rax", "rdx");
    check!("rax + rsi*4", MIDDLE, 32, "rax", "rsi");
    check!("rax + rdi*4", MIDDLE, 32, "rax", "rdi");
    check!("rax + r8*4", MIDDLE, 32, "rax", "r8");
    check!("rax + r9*4", MIDDLE, 32, "rax", "r9");
    check!("rax + r10*4", MIDDLE, 32, "rax", "r10");
    check!("rax + r11*4", MIDDLE, 32, "rax", "r11");
    check!("rax + r12*4", MIDDLE, 32, "rax", "r12");
    check!("rax + r13*4", MIDDLE, 32, "rax", "r13");
    check!("rax + r14*4", MIDDLE, 32, "rax", "r14");
    check!("r15 + r13*4", MIDDLE, 32, "r15", "r13");
}

#[test]
fn scales_and_displacements() {
    // Rows overlap at a stride of 8: later rows win.
    check!("rax + rcx", MIDDLE, 8, "rax", "rcx");
    check!("rax + rcx*8", MIDDLE, 64, "rax", "rcx");
    check!("rax + rcx*8 + 127", MIDDLE + 127, 64, "rax", "rcx");
    check!("rax + rcx*8 - 128", MIDDLE - 128, 64, "rax", "rcx");
    check!("rax + rcx*8 + 128", MIDDLE + 128, 64, "rax", "rcx");
    check!("r13 + rcx*8 - 2000", MIDDLE - 2000, 64, "r13", "rcx");
    check!("r12 + rcx*8 + 1024", MIDDLE + 1024, 64, "r12", "rcx");
}

/// `rbx`, `rbp` and `rsp`, which the compiler keeps for itself.
#[test]
fn the_other_registers() {
    load_config(&config(&[(16, 64), SHAPE]));
    let room = room(2);
    let expected = rows(&room, MIDDLE, 24);
    // The front of this copy is stack for the handler of an emulator while `rsp` points behind it.
    let mut stack = vec![0; 1 << 16];
    stack.extend_from_slice(&room);
    // SAFETY: all rows are inside of the room, registers are restored.
    unsafe {
        let p = room.as_ptr().add(MIDDLE);
        asm!("push rbp", "mov rbp, rax", "tileloadd tmm1, [rbp + rcx*8]", "pop rbp",
            in("rax") p, in("rcx") 3usize);
        assert_eq!(store(1), expected);
        asm!("push rbx", "mov rbx, rax", "tileloadd tmm1, [rbx + rcx*8]", "pop rbx",
            in("rax") p, in("rcx") 3usize);
        assert_eq!(store(1), expected);
        asm!("push rbp", "mov rbp, rcx", "tileloadd tmm1, [rax + rbp*8]", "pop rbp",
            in("rax") p, in("rcx") 3usize);
        assert_eq!(store(1), expected);
        asm!("push rbx", "mov rbx, rcx", "tileloadd tmm1, [rax + rbx*8]", "pop rbx",
            in("rax") p, in("rcx") 3usize);
        assert_eq!(store(1), expected);
        let p = stack.as_mut_ptr().add((1 << 16) + MIDDLE);
        asm!("mov rdx, rsp", "mov rsp, rax", "tileloadd tmm1, [rsp + rcx*8]", "mov rsp, rdx",
            in("rax") p, in("rcx") 3usize, out("rdx") _);
        assert_eq!(store(1), expected);
    }
    release();
}

#[test]
fn strides_that_are_negative_or_missing() {
    load_config(&config(&[(16, 64), SHAPE]));
    let room = room(3);
    // SAFETY: all rows are inside of the room.
    unsafe {
        let p = room.as_ptr().add(MIDDLE);
        asm!("tileloadd tmm1, [{p} + {s}*4]", p = in(reg) p, s = in(reg) -40isize,
            options(nostack));
        assert_eq!(store(1), rows(&room, MIDDLE, -160));
        // tileloadd tmm1, [rax]: without an index every row is the first one.
        asm!(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x20", in("rax") p, options(nostack));
        assert_eq!(store(1), rows(&room, MIDDLE, 0));
    }
    release();
}

/// A load that begins at another row, as after an interruption: rows before it stay, and the
/// next load begins at the first one again.
#[test]
fn a_load_that_goes_on() {
    let mut at_two = config(&[(16, 64), SHAPE]);
    at_two[1] = 2;
    load_config(&at_two);
    let data = Random(4).tile();
    load(1, &data);
    let loaded = store(1);
    assert_eq!(loaded[..128], [0; 128]);
    assert_eq!(loaded[128..140], data[128..140]);
    assert_eq!(crate::asm::store_config()[1], 0);
    load(1, &data);
    assert_eq!(store(1)[..12], data[..12]);
    release();
}
