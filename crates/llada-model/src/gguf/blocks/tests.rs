//! Blocks that the public `gguf` package has read (`tools/record_gguf_blocks.py`).

use serde_json::Value;

use super::*;

pub(in crate::gguf) fn recorded() -> Value {
    serde_json::from_str(include_str!("tests.json")).expect("a recorded file")
}

pub(in crate::gguf) fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("a text").as_bytes();
    let digit = |x: &u8| char::from(*x).to_digit(16).expect("a digit") as u8;
    hex.chunks(2)
        .map(|x| digit(&x[0]) << 4 | digit(&x[1]))
        .collect()
}

/// FNV-1a of 64 bits.
fn fnv(values: &[f32]) -> String {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes());
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn values_of_all_types_are_those_of_the_package() {
    let recorded = recorded();
    let types = recorded["read"].as_object().expect("types by name");
    let mut names: Vec<_> = types.keys().map(String::as_str).collect();
    let mut ours: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    ours.sort_unstable();
    names.sort_unstable();
    assert_eq!(ours, names);
    for (name, expected) in types {
        let kind = KINDS
            .iter()
            .find(|kind| kind.name == name)
            .expect("is read");
        assert_eq!(expected["number"], kind.number);
        let mut all = Vec::new();
        let blocks = expected["blocks"].as_array().expect("blocks").iter();
        for (block, first) in blocks.zip(expected["first"].as_array().expect("values")) {
            let block = bytes(block);
            assert_eq!(
                kind.size_bytes(&[1, kind.format.length]),
                Some(block.len()),
                "{name}"
            );
            let mut values = vec![f32::NAN; kind.format.length];
            kind.values(&block, &mut values);
            for (at, first) in first.as_array().expect("values").iter().enumerate() {
                // serde_json may be off by the last bit of f64; the digest below is exact.
                let first = first.as_f64().map(|x| x as f32);
                assert_eq!(Some(values[at]), first, "{name} {at}");
            }
            all.extend(values);
        }
        assert_eq!(all.len(), 6 * kind.format.length);
        assert_eq!(expected["fnv1a"], fnv(&all), "{name}");
    }
}

/// What a product of integers is made of: the values, but for the rounding of their sums.
#[test]
fn integers_of_blocks_make_the_values() {
    let recorded = recorded();
    let mut n_types = 0;
    for kind in &KINDS {
        let Some(integers) = kind.format.integers else {
            continue;
        };
        n_types += 1;
        let blocks = recorded["read"][kind.name]["blocks"].as_array();
        let bytes: Vec<u8> = blocks.expect("blocks").iter().flat_map(bytes).collect();
        let n = bytes.len() / kind.format.bytes * kind.format.length;
        let groups = n / integers.group;
        let (mut values, mut codes) = (vec![0.0; n], vec![0; n]);
        let (mut scales, mut minimums) = (vec![0.0; groups], vec![0.0; groups]);
        kind.values(&bytes, &mut values);
        let mut out = GroupCodes {
            codes: &mut codes,
            scales: &mut scales,
            minimums: &mut minimums,
        };
        (integers.read)(&bytes, &mut out);
        let largest = match integers.codes {
            Codes::UpTo15 => 15,
            Codes::UpTo31 => 31,
            Codes::UpTo63 => 63,
            Codes::Signed => 255,
        };
        for (at, (&code, &value)) in codes.iter().zip(&values).enumerate() {
            assert!(code <= largest, "{} {at}", kind.name);
            let number = match integers.codes {
                Codes::Signed => f32::from(code.cast_signed()),
                _ => f32::from(code) - f32::from(integers.offset),
            };
            let (scale, minimum) = (scales[at / integers.group], minimums[at / integers.group]);
            let size = (scale * number).abs() + minimum.abs();
            let error = (scale * number + minimum - value).abs();
            assert!(error <= 1e-6 * size, "{} {at}: {error}", kind.name);
        }
    }
    assert_eq!(n_types, 16);
}

#[test]
fn half_precision_numbers_are_exact() {
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (
            half_at(&bits.to_le_bytes(), 0),
            f16::from_bits(bits).to_f32(),
        );
        assert_eq!(ours.to_bits(), theirs.to_bits(), "{bits:#x}");
    }
}

#[test]
fn types_that_are_not_read_are_named() {
    assert_eq!(Kind::unknown(9).0, "type Q8_1");
    assert_eq!(Kind::unknown(28).0, "type F64");
    assert_eq!(Kind::unknown(41).0, "type Q1_0");
    assert!(Kind::unknown(77).0.starts_with("type 77, which"));
    let expected = Kind::unknown(9).1;
    assert!(expected.contains("Q5_K, Q6_K, IQ2_XXS"), "{expected}");
    for number in 0..100 {
        let is_other = OTHERS.iter().any(|(other, _)| *other == number);
        assert!(!(is_other && Kind::of(number).is_some()), "{number}");
    }
}
