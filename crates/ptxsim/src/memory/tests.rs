use super::{Known, Memory, Use};

#[test]
fn bounds_and_lifetimes() {
    let mut memory = Memory::new(1 << 20, true);
    let a = memory.allocate(100).unwrap();
    let check = |memory: &Memory, address, bytes, usage| {
        memory.check(address, bytes, usage, &mut Known::default())
    };
    assert!(
        check(&memory, a, 4, Use::Read)
            .unwrap_err()
            .contains("uninitialized")
    );
    check(&memory, a + 60, 8, Use::Write).unwrap();
    check(&memory, a + 60, 8, Use::Read).unwrap();
    assert!(
        check(&memory, a + 60, 9, Use::Read)
            .unwrap_err()
            .contains("uninitialized")
    );
    assert!(
        check(&memory, a + 98, 4, Use::Write)
            .unwrap_err()
            .contains("out of bounds")
    );
    memory.host_range(a, 100, true).unwrap();
    check(&memory, a, 100, Use::Read).unwrap();
    assert!(memory.free(a));
    assert!(!memory.free(a));
    assert!(
        check(&memory, a, 4, Use::Write)
            .unwrap_err()
            .contains("use after free")
    );
}

#[test]
fn the_device_has_a_size() {
    let mut memory = Memory::new(1000, false);
    let a = memory.allocate(600).unwrap();
    assert_eq!(memory.allocate(600), None);
    assert!(memory.free(a));
    assert!(memory.allocate(600).is_some());
}
