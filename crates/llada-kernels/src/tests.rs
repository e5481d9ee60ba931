//! What the build script made.

#[cfg(feature = "nvcc")]
#[test]
fn the_kept_bindings_are_those_of_the_header() {
    let made = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    let kept = include_str!("bindings.rs");
    assert_eq!(
        made,
        kept,
        "copy {}/bindings.rs to crates/llada-kernels/src/bindings.rs",
        env!("OUT_DIR")
    );
}

#[test]
fn there_is_an_image_per_file_of_device_code() {
    let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let is_source = |path: &std::path::Path| path.extension().is_some_and(|ext| ext == "cu");
    let n_sources = std::fs::read_dir(kernels)
        .unwrap()
        .filter(|entry| is_source(&entry.as_ref().unwrap().path()))
        .count();
    let expected = if cfg!(feature = "nvcc") { n_sources } else { 0 };
    assert_eq!(super::IMAGES.len(), expected);
    for image in super::IMAGES {
        assert_eq!(
            image.fatbin[..4],
            0xba55_ed50_u32.to_le_bytes(),
            "{}",
            image.op
        );
    }
}
