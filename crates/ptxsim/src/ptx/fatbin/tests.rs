use super::{FATBIN_MAGIC, FLAG_COMPRESSED, KIND_PTX, ptx_of, registers_of};

/// A container with one entry, laid out as `fatbinary` does.
fn container(flags: u64, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut entry = vec![0; 64];
    entry[..2].copy_from_slice(&kind.to_le_bytes());
    entry[4..8].copy_from_slice(&64_u32.to_le_bytes());
    entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    entry[40..48].copy_from_slice(&flags.to_le_bytes());
    entry.extend(payload);
    let mut image = FATBIN_MAGIC.to_le_bytes().to_vec();
    image.extend(1_u16.to_le_bytes());
    image.extend(16_u16.to_le_bytes());
    image.extend((entry.len() as u64).to_le_bytes());
    image.extend(entry);
    image
}

fn read(image: &[u8]) -> Result<String, String> {
    // SAFETY: the container states its size, and is that long.
    unsafe { ptx_of(image.as_ptr()) }
}

#[test]
fn finds_the_ptx() {
    assert_eq!(
        read(&container(0, KIND_PTX, b".version 9.0\n\0\0\0")).unwrap(),
        ".version 9.0\n"
    );
    assert_eq!(read(b".version 8.0\0").unwrap(), ".version 8.0");
}

#[test]
fn says_what_is_missing() {
    assert!(
        read(&container(FLAG_COMPRESSED, KIND_PTX, b"xyz"))
            .unwrap_err()
            .contains("-no-compress")
    );
    assert!(
        read(&container(0, 2, b"\x7fELF"))
            .unwrap_err()
            .contains("code=compute_80")
    );
    assert!(read(b"\x7fELF\0").unwrap_err().contains("cubin"));
    // SAFETY: as in `read`.
    let registers = unsafe { registers_of(container(0, 2, b"\x7fELF").as_ptr()) };
    assert!(registers.is_empty());
}
