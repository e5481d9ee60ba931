//! Loads and stores of a warp.

use super::block::Env;
use super::regs::{FULL, LANES, Regs};
use super::warp::{Fault, Warp};
use crate::isa::{Access, Addr, NONE, Space};
use crate::memory::Use;

/// Windows of the generic address space: above any address of the host.
pub(crate) const SHARED_WINDOW: u64 = 1 << 56;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 56;
pub(crate) const PARAM_WINDOW: u64 = 3 << 56;
const WINDOW_MASK: u64 = 0xff << 56;

/// `CUDA_ERROR_ILLEGAL_ADDRESS`.
pub(crate) const ILLEGAL_ADDRESS: i32 = 700;
/// `CUDA_ERROR_MISALIGNED_ADDRESS`.
pub(crate) const MISALIGNED: i32 = 716;

/// The lanes of a mask, in order.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

/// The address of every lane.
#[inline]
pub(crate) fn addresses(regs: &Regs, addr: Addr) -> [u64; LANES] {
    let offset = addr.offset.cast_unsigned();
    if addr.base == NONE {
        [offset; LANES]
    } else if addr.wide {
        let base = regs.long(addr.base);
        let mut result = [0; LANES];
        for lane in 0..LANES {
            result[lane] = base[lane].wrapping_add(offset);
        }
        result
    } else {
        let base = regs.word(addr.base);
        let mut result = [0; LANES];
        for lane in 0..LANES {
            result[lane] = u64::from(base[lane].wrapping_add(offset as u32));
        }
        result
    }
}

/// The space of a generic address, and the address in it.
pub(crate) fn split_generic(address: u64) -> (Space, u64) {
    match address & WINDOW_MASK {
        SHARED_WINDOW => (Space::Shared, address & !WINDOW_MASK),
        LOCAL_WINDOW => (Space::Local, address & !WINDOW_MASK),
        PARAM_WINDOW => (Space::Param, address & !WINDOW_MASK),
        _ => (Space::Global, address),
    }
}

/// An access with its addresses resolved.
#[derive(Clone, Copy)]
pub(crate) struct Touch<'a> {
    pub(crate) space: Space,
    pub(crate) at: &'a [u64; LANES],
    /// Bytes for each lane.
    pub(crate) bytes: usize,
    pub(crate) mask: u32,
    pub(crate) usage: Use,
}

/// Checks an access of a warp in one space, and counts it. After this, every lane's bytes may be accessed.
pub(crate) fn touch(warp: &Warp, env: &mut Env<'_>, touch: Touch<'_>) -> Result<(), Fault> {
    let Touch {
        space,
        at,
        bytes,
        mask,
        usage,
    } = touch;
    let (low, high, bits) = extent(at, mask);
    if bits & (bytes as u64 - 1) != 0 {
        let lane = lanes(mask)
            .find(|&lane| at[lane] & (bytes as u64 - 1) != 0)
            .unwrap_or(0);
        let message = format!(
            "misaligned {}: {bytes} bytes at {:#x}",
            describe(space, usage),
            at[lane]
        );
        return Err(Fault {
            code: MISALIGNED,
            lane,
            message,
        });
    }
    let limit = match space {
        Space::Shared => env.shared.len(),
        Space::Local => env.kernel.local_bytes,
        Space::Param => env.params.len(),
        Space::Global | Space::Generic => return touch_global(env, touch, low, high),
    };
    let end = high.saturating_add(bytes as u64);
    if end > limit as u64 {
        let lane = lanes(mask)
            .find(|&lane| at[lane].saturating_add(bytes as u64) > limit as u64)
            .unwrap_or(0);
        let message = format!(
            "out of bounds: {} of {bytes} bytes at {:#x}, where there are {limit} bytes",
            describe(space, usage),
            at[lane]
        );
        return Err(Fault {
            code: ILLEGAL_ADDRESS,
            lane,
            message,
        });
    }
    if space == Space::Shared {
        if env.stats_on {
            env.stats.count_shared(at, mask, bytes);
        }
        if let Some(shadow) = &mut env.shadow {
            shadow.touch(warp.id, at, bytes, mask, usage == Use::Write, env.line)?;
        }
    }
    Ok(())
}

/// The least and greatest address of a mask's lanes, and all their bits.
#[inline]
fn extent(at: &[u64; LANES], mask: u32) -> (u64, u64, u64) {
    let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
    if mask == FULL {
        for &address in at {
            low = low.min(address);
            high = high.max(address);
            bits |= address;
        }
    } else {
        for lane in lanes(mask) {
            low = low.min(at[lane]);
            high = high.max(at[lane]);
            bits |= at[lane];
        }
    }
    (low, high, bits)
}

fn touch_global(env: &mut Env<'_>, touch: Touch<'_>, low: u64, high: u64) -> Result<(), Fault> {
    let Touch {
        at,
        bytes,
        mask,
        usage,
        ..
    } = touch;
    if env.stats_on {
        env.stats.count_global(at, mask, bytes);
    }
    if high < WINDOW_MASK && env.known.contains(low, high.wrapping_add(bytes as u64)) {
        return Ok(());
    }
    for lane in lanes(mask) {
        if let Err(why) = env.memory.check(at[lane], bytes, usage, &mut env.known) {
            let message = format!(
                "{} of {bytes} bytes at {:#x}: {why}",
                describe(Space::Global, usage),
                at[lane]
            );
            return Err(Fault {
                code: ILLEGAL_ADDRESS,
                lane,
                message,
            });
        }
    }
    Ok(())
}

fn describe(space: Space, usage: Use) -> &'static str {
    match (space, usage == Use::Write) {
        (Space::Shared, false) => "read of shared memory",
        (Space::Shared, true) => "write to shared memory",
        (Space::Local, false) => "read of local memory",
        (Space::Local, true) => "write to local memory",
        (Space::Param, _) => "read of a parameter",
        (_, false) => "read of global memory",
        (_, true) => "write to global memory",
    }
}

/// Runs `f` for each space that the lanes' generic addresses lie in.
pub(crate) fn by_space(
    space: Space,
    at: &[u64; LANES],
    mask: u32,
    mut f: impl FnMut(Space, &[u64; LANES], u32) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if space != Space::Generic {
        return f(space, at, mask);
    }
    let mut rest = mask;
    while rest != 0 {
        let (space, _) = split_generic(at[rest.trailing_zeros() as usize]);
        let mut here = 0;
        let mut local = *at;
        for lane in lanes(rest) {
            let (other, address) = split_generic(at[lane]);
            if other == space {
                here |= 1 << lane;
                local[lane] = address;
            }
        }
        f(space, &local, here)?;
        rest &= !here;
    }
    Ok(())
}

impl Warp {
    /// `ld`, where `mask` says.
    pub(crate) fn load(
        &mut self,
        access: &Access,
        mask: u32,
        env: &mut Env<'_>,
    ) -> Result<(), Fault> {
        let at = addresses(&self.regs, access.addr);
        by_space(access.space, &at, mask, |space, at, mask| {
            let bytes = usize::from(access.bytes) * usize::from(access.n);
            touch(
                self,
                env,
                Touch {
                    space,
                    at,
                    bytes,
                    mask,
                    usage: Use::Read,
                },
            )?;
            let (base, stride) = self.place(space, env);
            gather(&mut self.regs, access, at, mask, base, stride);
            Ok(())
        })
    }

    /// `st`, where `mask` says.
    pub(crate) fn store(
        &mut self,
        access: &Access,
        mask: u32,
        env: &mut Env<'_>,
    ) -> Result<(), Fault> {
        let at = addresses(&self.regs, access.addr);
        by_space(access.space, &at, mask, |space, at, mask| {
            let bytes = usize::from(access.bytes) * usize::from(access.n);
            touch(
                self,
                env,
                Touch {
                    space,
                    at,
                    bytes,
                    mask,
                    usage: Use::Write,
                },
            )?;
            let (base, stride) = self.place(space, env);
            scatter(&self.regs, access, at, mask, base, stride);
            Ok(())
        })
    }

    /// Where a space begins in the host's memory, and how far apart its copies for two lanes are.
    pub(crate) fn place(&mut self, space: Space, env: &mut Env<'_>) -> (*mut u8, usize) {
        match space {
            Space::Shared => (env.shared.as_mut_ptr(), 0),
            Space::Local => (self.local.as_mut_ptr(), env.kernel.local_bytes),
            // Parameters are only read: `st.param` of a kernel's own parameter does not decode.
            Space::Param => (env.params.as_ptr().cast_mut(), 0),
            Space::Global | Space::Generic => (std::ptr::null_mut(), 0),
        }
    }
}

#[inline]
fn pointer(base: *mut u8, address: u64, lane: usize, stride: usize) -> *mut u8 {
    base.wrapping_add((address as usize).wrapping_add(lane.wrapping_mul(stride)))
}

#[inline]
fn consecutive(at: &[u64; LANES], bytes: u64) -> bool {
    let mut same = true;
    for lane in 0..LANES {
        same &= at[lane] == at[0].wrapping_add(lane as u64 * bytes);
    }
    same
}

/// Reads `access` of every lane into its registers. `touch` has found the bytes to be there.
fn gather(
    regs: &mut Regs,
    access: &Access,
    at: &[u64; LANES],
    mask: u32,
    base: *mut u8,
    stride: usize,
) {
    let n = usize::from(access.n);
    let bytes = usize::from(access.bytes);
    let whole = mask == FULL && stride == 0;
    let row = whole && n == 1 && bytes == 4 && !access.wide && access.regs[0] != NONE;
    if row && consecutive(at, 4) {
        let d = regs.word_mut(access.regs[0]);
        let source = pointer(base, at[0], 0, 0);
        // SAFETY: `touch` has checked the 4 bytes of each lane, and they follow one another.
        unsafe { std::ptr::copy_nonoverlapping(source, d.as_mut_ptr().cast(), 4 * LANES) };
        return;
    }
    let same = whole && consecutive(at, 0);
    for (i, &reg) in access.regs[..n].iter().enumerate() {
        if reg == NONE {
            continue;
        }
        let source = |lane: usize| {
            pointer(base, at[lane], lane, stride)
                .wrapping_add(bytes * i)
                .cast_const()
        };
        if access.wide {
            let mut value = [0; LANES];
            for lane in lanes(mask) {
                // SAFETY: `touch` has checked the bytes of each lane of the mask.
                value[lane] = unsafe { read(source(lane), access) };
            }
            regs.put_longs(reg, &value, mask);
            continue;
        }
        let mut value = [0; LANES];
        if same {
            // SAFETY: `touch` has checked the bytes of every lane.
            value = [unsafe { read(source(0), access) } as u32; LANES];
        } else if bytes == 4 && mask == FULL {
            for (lane, value) in value.iter_mut().enumerate() {
                // SAFETY: `touch` has checked the bytes of every lane.
                *value = unsafe { source(lane).cast::<u32>().read_unaligned() };
            }
        } else if bytes == 2 && mask == FULL && !access.signed {
            for (lane, value) in value.iter_mut().enumerate() {
                // SAFETY: `touch` has checked the bytes of every lane.
                *value = u32::from(unsafe { source(lane).cast::<u16>().read_unaligned() });
            }
        } else {
            for lane in lanes(mask) {
                // SAFETY: `touch` has checked the bytes of each lane of the mask.
                value[lane] = unsafe { read(source(lane), access) } as u32;
            }
        }
        regs.put_words(reg, &value, mask);
    }
}

/// Reads one element, extended to 64 bits.
///
/// # Safety
/// `source` points to as many bytes as the element has.
unsafe fn read(source: *const u8, access: &Access) -> u64 {
    // SAFETY: the caller says that the bytes are there.
    unsafe {
        match (access.bytes, access.signed) {
            (1, false) => u64::from(source.read()),
            (1, true) => i64::from(source.cast::<i8>().read()).cast_unsigned(),
            (2, false) => u64::from(source.cast::<u16>().read_unaligned()),
            (2, true) => i64::from(source.cast::<i16>().read_unaligned()).cast_unsigned(),
            (4, false) => u64::from(source.cast::<u32>().read_unaligned()),
            (4, true) => i64::from(source.cast::<i32>().read_unaligned()).cast_unsigned(),
            _ => source.cast::<u64>().read_unaligned(),
        }
    }
}

/// Writes the registers of every lane. `touch` has found the bytes to be there.
fn scatter(
    regs: &Regs,
    access: &Access,
    at: &[u64; LANES],
    mask: u32,
    base: *mut u8,
    stride: usize,
) {
    let n = usize::from(access.n);
    if access.bytes == 4 && !access.wide {
        if n == 1 && mask == FULL && stride == 0 && consecutive(at, 4) {
            let a = regs.word(access.regs[0]);
            // SAFETY: `touch` has checked the 4 bytes of each lane, and they follow one another.
            unsafe {
                std::ptr::copy_nonoverlapping(a.as_ptr().cast(), pointer(base, at[0], 0, 0), 128);
            };
            return;
        }
        for (i, &reg) in access.regs[..n].iter().enumerate() {
            let a = regs.word(reg);
            for lane in lanes(mask) {
                let target = pointer(base, at[lane], lane, stride).wrapping_add(4 * i);
                // SAFETY: `touch` has checked the bytes of each lane of the mask.
                unsafe { target.cast::<u32>().write_unaligned(a[lane]) };
            }
        }
        return;
    }
    for (i, &reg) in access.regs[..n].iter().enumerate() {
        for lane in lanes(mask) {
            let value = if access.wide {
                regs.long(reg)[lane]
            } else {
                u64::from(regs.word(reg)[lane])
            };
            let target =
                pointer(base, at[lane], lane, stride).wrapping_add(usize::from(access.bytes) * i);
            // SAFETY: `touch` has checked the bytes of each lane of the mask.
            unsafe {
                match access.bytes {
                    1 => target.write(value as u8),
                    2 => target.cast::<u16>().write_unaligned(value as u16),
                    4 => target.cast::<u32>().write_unaligned(value as u32),
                    _ => target.cast::<u64>().write_unaligned(value),
                }
            }
        }
    }
}
