use super::*;

fn line(step: u64) -> MetricsLine {
    MetricsLine {
        step,
        loss: 2.5,
        lr: 0.125,
        grad_norm: 1.5,
        tokens: 100 * step,
        tokens_per_second: 1000.0,
        seconds: step as f64,
        skipped: 0,
        validation_bound: (step == 300).then_some(3.25),
        validation_standard_error: None,
    }
}

fn read(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(FILE)).unwrap()
}

/// The steps of whole records, none that of the version.
fn steps(content: &[u8]) -> Vec<Option<u64>> {
    let (mut end, mut steps) = (0, Vec::new());
    while let Some((event, next)) = next_record(content, end) {
        steps.push(step_of(event));
        end = next;
    }
    assert_eq!(end, content.len());
    steps
}

#[test]
fn a_file_has_the_bytes_of_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = Events::open(folder.path(), 0, &[], 1000.5).unwrap();
    events.push(&line(300), 1300.5).unwrap();
    // Recorded by tools/tensorboard_events.py with tensorboard 2.21.0.
    let expected = include_bytes!("../fixtures/events.out.tfevents");
    assert_eq!(read(folder.path()), expected);
}

#[test]
fn a_resumed_run_has_each_step_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut events = Events::open(path, 0, &[], 0.0).unwrap();
    for step in [10, 20, 300, 400] {
        events.push(&line(step), 1.0).unwrap();
    }
    drop(events);
    // A crash left a part of a record, after steps that the checkpoint does not have.
    let whole = read(path);
    fs::write(path.join(FILE), &whole[..whole.len() - 5]).unwrap();
    let mut events = Events::open(path, 20, &[line(10), line(20)], 2.0).unwrap();
    assert_eq!(steps(&read(path)), [None, Some(10), Some(20)]);
    events.push(&line(30), 3.0).unwrap();
    assert_eq!(steps(&read(path)), [None, Some(10), Some(20), Some(30)]);
}

#[test]
fn a_run_without_events_gets_those_of_its_metrics() {
    let folder = tempfile::tempdir().unwrap();
    Events::open(folder.path(), 20, &[line(10), line(20)], 1020.0).unwrap();
    let content = read(folder.path());
    assert_eq!(steps(&content), [None, Some(10), Some(20)]);
    let (_, begin) = next_record(&content, 0).unwrap();
    let (event, _) = next_record(&content, begin).unwrap();
    assert_eq!(event[1..9], 1010.0_f64.to_le_bytes());
}

#[test]
fn checksums_are_those_of_crc_32c() {
    // RFC 3720, B.4: 32 bytes of zeros.
    let crc = masked_crc(&[0; 32])
        .wrapping_sub(0xA282_EAD8)
        .rotate_left(15);
    assert_eq!(crc, 0x8A91_36AA);
}
