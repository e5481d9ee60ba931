//! Occupancy of hand-computed cases.

use super::{Footprint, Gpu};

#[track_caller]
fn check(
    arch: &str,
    threads: u32,
    registers: u32,
    shared_bytes: u32,
    blocks: u32,
    limits: &[&str],
) {
    let footprint = Footprint {
        threads,
        registers,
        shared_bytes,
    };
    let occupancy = Gpu::of(arch).unwrap().occupancy(footprint);
    assert_eq!((occupancy.blocks, &occupancy.limits[..]), (blocks, limits));
}

#[test]
fn the_scarcest_resource_limits_the_blocks() {
    // 199 registers are 6,400 a warp: 2 warps of each quarter, 8 in all.
    check("80", 128, 199, 49_152, 2, &["registers"]);
    // 48 KiB and 1 KiB of the system: 3 of 164 KiB, 2 of 100 KiB.
    check("80", 128, 64, 49_152, 3, &["shared"]);
    check("86", 128, 64, 49_152, 2, &["shared"]);
    check("89", 1024, 32, 0, 1, &["threads"]);
    check("86", 32, 16, 0, 16, &["blocks"]);
    check("90a", 256, 32, 0, 8, &["registers", "threads"]);
    check("80", 1024, 128, 0, 0, &["registers"]);
}

#[test]
fn every_architecture_of_the_images_has_a_gpu() {
    for arch in ["80", "86", "89", "90a", "100", "120"] {
        assert!(Gpu::of(arch).is_some(), "{arch}");
    }
}
