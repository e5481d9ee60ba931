//! Finds the PTX in what a program passes to `cuModuleLoadData`.

use std::collections::BTreeMap;

/// Magic of the fat binary container that `nvcc -fatbin` writes.
const FATBIN_MAGIC: u32 = 0xba55_ed50;
/// The first bytes of an ELF file: a cubin, which holds no PTX.
const ELF_MAGIC: u32 = 0x464c_457f;
/// Kind of a fat binary entry that holds PTX.
const KIND_PTX: u16 = 1;
/// Kind of a fat binary entry that holds machine code.
const KIND_ELF: u16 = 2;
/// Bit in an entry's flags: the payload is compressed.
const FLAG_COMPRESSED: u64 = 0x2000;

/// Reads the PTX of an image: a fat binary, or text that ends with a zero byte.
///
/// # Safety
/// `image` points to a whole fat binary or to a string that ends with a zero byte.
pub(crate) unsafe fn ptx_of(image: *const u8) -> Result<String, String> {
    // SAFETY: both kinds of image have four bytes, the shortest valid PTX has more.
    let magic = unsafe { image.cast::<u32>().read_unaligned() };
    match magic {
        FATBIN_MAGIC => {
            // SAFETY: the header holds the size of what follows at byte 8; the caller passed it whole.
            let bytes = unsafe {
                let body = image.add(8).cast::<u64>().read_unaligned();
                let body = usize::try_from(body).map_err(|_| "the fat binary is too big")?;
                std::slice::from_raw_parts(image, body + 16)
            };
            ptx_of_fatbin(bytes)
        }
        ELF_MAGIC => Err("a cubin holds no PTX; load PTX, or a fat binary with PTX".to_owned()),
        _ => {
            // SAFETY: the caller says that the text ends with a zero byte.
            let text = unsafe { std::ffi::CStr::from_ptr(image.cast()) };
            Ok(text.to_string_lossy().into_owned())
        }
    }
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The last PTX entry of a fat binary (the newest architecture, when there are several).
fn ptx_of_fatbin(bytes: &[u8]) -> Result<String, String> {
    let header = usize::from(u16::from_le_bytes(
        read(bytes, 6).ok_or("a short fat binary")?,
    ));
    let mut at = header;
    let mut found = None;
    while let (Some(kind), Some(head), Some(size), Some(flags)) = (
        read::<2>(bytes, at).map(u16::from_le_bytes),
        read::<4>(bytes, at + 4).map(u32::from_le_bytes),
        read::<8>(bytes, at + 8).map(u64::from_le_bytes),
        read::<8>(bytes, at + 40).map(u64::from_le_bytes),
    ) {
        let start = at + head as usize;
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        let Some(payload) = bytes.get(start..end) else {
            break;
        };
        if kind == KIND_PTX {
            if flags & FLAG_COMPRESSED != 0 {
                return Err("the PTX is compressed; build with `nvcc -no-compress`".to_owned());
            }
            let length = payload
                .iter()
                .position(|&c| c == 0)
                .unwrap_or(payload.len());
            found = Some(String::from_utf8_lossy(&payload[..length]).into_owned());
        }
        if head == 0 {
            break;
        }
        at = end;
    }
    found.ok_or_else(|| {
        "the fat binary holds no PTX; add `-gencode arch=compute_80,code=compute_80`".to_owned()
    })
}

/// Registers per thread of each kernel in the fat binary's machine code: of the oldest architecture, which
/// is the one that this device resembles most. Empty for other images.
///
/// # Safety
/// As for [`ptx_of`].
pub(crate) unsafe fn registers_of(image: *const u8) -> BTreeMap<String, u32> {
    // SAFETY: as in `ptx_of`.
    let bytes = unsafe {
        if image.cast::<u32>().read_unaligned() != FATBIN_MAGIC {
            return BTreeMap::new();
        }
        let body = image.add(8).cast::<u64>().read_unaligned();
        std::slice::from_raw_parts(image, usize::try_from(body).unwrap_or(0) + 16)
    };
    let mut best: Option<(u32, &[u8])> = None;
    let mut at = usize::from(read(bytes, 6).map_or(0, u16::from_le_bytes));
    while let (Some(kind), Some(head), Some(size), Some(arch), Some(flags)) = (
        read::<2>(bytes, at).map(u16::from_le_bytes),
        read::<4>(bytes, at + 4).map(u32::from_le_bytes),
        read::<8>(bytes, at + 8).map(u64::from_le_bytes),
        read::<4>(bytes, at + 28).map(u32::from_le_bytes),
        read::<8>(bytes, at + 40).map(u64::from_le_bytes),
    ) {
        let start = at + head as usize;
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        let Some(payload) = bytes.get(start..end) else {
            break;
        };
        let is_code = kind == KIND_ELF && flags & FLAG_COMPRESSED == 0;
        if is_code && best.is_none_or(|(oldest, _)| arch < oldest) {
            best = Some((arch, payload));
        }
        if head == 0 {
            break;
        }
        at = end;
    }
    best.and_then(|(_, elf)| registers_of_elf(elf))
        .unwrap_or_default()
}

/// The upper byte of `sh_info` of a section `.text.NAME` is the number of registers.
fn registers_of_elf(elf: &[u8]) -> Option<BTreeMap<String, u32>> {
    let half = |at: usize| read(elf, at).map(u16::from_le_bytes).map(usize::from);
    let long = |at: usize| {
        read(elf, at)
            .map(u64::from_le_bytes)
            .and_then(|v| usize::try_from(v).ok())
    };
    let word = |at: usize| read(elf, at).map(u32::from_le_bytes);
    let (table, entry, count, names) = (long(40)?, half(58)?, half(60)?, half(62)?);
    let strings = long(table + names * entry + 24)?;
    let mut registers = BTreeMap::new();
    for section in (0..count).map(|i| table + i * entry) {
        let name = elf.get(strings + word(section)? as usize..)?;
        let length = name.iter().position(|&c| c == 0)?;
        let name = String::from_utf8_lossy(&name[..length]);
        if let Some(kernel) = name.strip_prefix(".text.") {
            registers.insert(kernel.to_owned(), word(section + 44)? >> 24);
        }
    }
    Some(registers)
}

#[cfg(test)]
mod tests;
