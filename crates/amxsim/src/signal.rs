//! The handler of `SIGILL`.
//!
//! It calls nothing that allocates or locks, and its tiles are thread-local storage that is
//! initialized at compile time and needs no destructor: reading it is a plain memory access.
//! The system saves the vector registers of the interrupted code and gives the handler default
//! rounding, so that it may compute freely.
#![expect(
    unsafe_code,
    reason = "a signal handler and the memory of the code that it interrupts"
)]

use std::cell::RefCell;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};

use crate::decode::decode;
use crate::tiles::{Memory, Tiles};

thread_local! {
    static TILES: RefCell<Tiles> = const { RefCell::new(Tiles::NEW) };
}

/// What happened on `SIGILL` before.
static BEFORE: OnceLock<sigaction> = OnceLock::new();

/// General registers in the order of their encoding.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Whether the handler is in place now.
pub(crate) fn install() -> bool {
    // SAFETY: all zeros is a valid `sigaction`; the calls read and write only these two. The
    // handler has the signature that `SA_SIGINFO` asks for.
    unsafe {
        let mut before: sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGILL, ptr::null(), &raw mut before) != 0 {
            return false;
        }
        let _ = BEFORE.set(before);
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_illegal_instruction;
        let mut action: sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &raw const action, ptr::null_mut()) == 0
    }
}

extern "C" fn on_illegal_instruction(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands both to a handler with `SA_SIGINFO`; nothing else refers to them.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<ucontext_t>()) };
    let is_fault = info.si_code > 0;
    // SAFETY: after a fault, `rip` points to the instruction, and it may access what it names.
    if is_fault && unsafe { step(context) } {
        return;
    }
    // SAFETY: `BEFORE` came from `sigaction`; both calls are allowed in a handler.
    unsafe {
        let before = BEFORE.get().map_or(ptr::null(), ptr::from_ref);
        libc::sigaction(libc::SIGILL, before, ptr::null_mut());
        // The instruction is executed again and faults again; what was sent must be sent again.
        if !is_fault {
            libc::raise(signal);
        }
    }
}

/// Executes the instruction at `rip` and goes behind it, if it is one of AMX.
///
/// # Safety
/// `rip` points to an instruction that the processor has read, and the program is sound on a
/// processor that executes it.
unsafe fn step(context: &mut ucontext_t) -> bool {
    let general = &mut context.uc_mcontext.gregs;
    let rip = general[libc::REG_RIP as usize].cast_unsigned();
    let code = ptr::with_exposed_provenance::<u8>(rip as usize);
    // SAFETY: `decode` asks for bytes of the instruction only.
    let Some(instruction) = decode(|at| unsafe { code.add(at).read() }) else {
        return false;
    };
    let registers = REGISTERS.map(|register| general[register as usize].cast_unsigned());
    let next = rip.wrapping_add(instruction.len as u64);
    // SAFETY: by the caller's promise, the program may access what the instruction names.
    let mut memory = unsafe { ProgramMemory::new() };
    let done = TILES
        .with_borrow_mut(|tiles| tiles.execute(instruction, &registers, next, &mut memory))
        .is_ok();
    if done {
        general[libc::REG_RIP as usize] = next.cast_signed();
    }
    done
}

/// The memory of the interrupted program. What it must not access faults here as it would there.
struct ProgramMemory(());

impl ProgramMemory {
    /// # Safety
    /// It is only asked for addresses that the interrupted instruction accesses.
    unsafe fn new() -> Self {
        Self(())
    }
}

impl Memory for ProgramMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) {
        let from = ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: by the promise of `new`; the tiles are not memory of the program.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let to = ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}
