use super::*;

fn crc(data: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(data);
    crc.value()
}

#[test]
fn crc_has_the_published_check_value() {
    assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc(b""), 0);
    assert_eq!(
        crc(b"The quick brown fox jumps over the lazy dog"),
        0x414F_A339
    );
}

#[test]
fn crc_of_parts_is_that_of_the_whole() {
    let data: Vec<u8> = (0..=255).cycle().take(1003).collect();
    for cut in [0, 1, 7, 8, 9, 500, 1002, 1003] {
        let mut parts = Crc32::new();
        parts.update(&data[..cut]);
        parts.update(&data[cut..]);
        assert_eq!(parts.value(), crc(&data), "cut at {cut}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_error_that_names_the_file() {
    let mut file = SummedFile::create(Path::new("/dev/full")).unwrap();
    let written = file.write(&[0; 100]).and_then(|()| file.finish());
    let error = written.unwrap_err();
    assert_eq!(error.to_string(), "writing /dev/full failed");
    let Error::Io { source, .. } = error else {
        panic!("an error of the system")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}
