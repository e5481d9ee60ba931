//! The PTX inside of a fatbin.

/// First word of a fatbin.
const MAGIC: u32 = 0xba55_ed50;
/// Kind of an entry that holds PTX.
const PTX: u16 = 1;

/// Bytes of a fatbin from its header on, if it is one.
pub(crate) fn length(header: &[u8; 16]) -> Option<usize> {
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(0) != MAGIC {
        return None;
    }
    let header_bytes = u16::from_le_bytes([header[6], header[7]]) as usize;
    let bytes = u64::from(word(8)) | u64::from(word(12)) << 32;
    usize::try_from(bytes).ok()?.checked_add(header_bytes)
}

/// The PTX text of an uncompressed fatbin.
pub(crate) fn ptx(fatbin: &[u8]) -> Option<String> {
    let mut at = u16::from_le_bytes([*fatbin.get(6)?, *fatbin.get(7)?]) as usize;
    // Entries: kind, version, header size, payload size.
    while at + 16 <= fatbin.len() {
        let entry = &fatbin[at..];
        let kind = u16::from_le_bytes([entry[0], entry[1]]);
        let header = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]) as usize;
        let mut size = [0; 8];
        size.copy_from_slice(&entry[8..16]);
        let size = usize::try_from(u64::from_le_bytes(size)).ok()?;
        let payload = entry.get(header..header.checked_add(size)?)?;
        if kind == PTX {
            let end = payload
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(payload.len());
            let text = String::from_utf8_lossy(&payload[..end]).into_owned();
            return text.contains(".version").then_some(text);
        }
        at += header + size;
    }
    None
}
