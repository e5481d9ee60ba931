//! Row lookup and its gradient.

use llada_tensor::ops::embedding::write_rows;
use llada_tensor::{DType, Device, Philox, Stream, Tensor};

use crate::bounds::{as_good_as_scalar, output, same_bits, widen};
use crate::support::{cpu, cuda, values};

fn ids(n: usize, limit: u64) -> Vec<u32> {
    let philox = Philox::new(2, Stream::Test);
    let id = |i: usize| philox.below(limit, [u32::try_from(i).unwrap(), 0, 0]);
    (0..n).map(|i| u32::try_from(id(i)).unwrap()).collect()
}

#[track_caller]
fn check(vocabulary: usize, d: usize, ids: &[u32]) {
    let Some(cuda) = cuda() else { return };
    let (table, dy) = (values(1, vocabulary * d), values(2, ids.len() * d));
    let name = format!("{} rows of {vocabulary}x{d}", ids.len());
    for dtype in [DType::F32, DType::Bf16] {
        let lookup = |device: &Device| {
            let table = Tensor::from_f32(device, &[vocabulary, d], &table).unwrap();
            let table = table.to_dtype(dtype).unwrap();
            let mut y = output(device, DType::F32, &[ids.len(), d]);
            device.backend().embedding(&table, ids, &mut y).unwrap();
            y.to_vec_f32().unwrap()
        };
        same_bits(
            &format!("{name} {dtype:?}"),
            &lookup(&cuda),
            &lookup(&cpu()),
        );
    }
    // The gradient is added to what is there, in the order of the ids.
    let gradient = |device: &Device| {
        let mut dtable = Tensor::from_f32(device, &[vocabulary, d], &table).unwrap();
        let dy = Tensor::from_f32(device, &[ids.len(), d], &dy).unwrap();
        let backend = device.backend();
        backend.embedding_backward(&dy, ids, &mut dtable).unwrap();
        dtable.to_vec_f32().unwrap()
    };
    same_bits(
        &format!("{name} backward"),
        &gradient(&cuda),
        &gradient(&cpu()),
    );
}

#[test]
fn lookups_and_gradients_are_those_of_the_scalar_code() {
    check(1, 1, &[0]);
    check(5, 0, &[3, 1]);
    check(5, 7, &[]);
    check(3, 40, &ids(200, 3));
    check(50, 36, &ids(77, 50));
    check(9, 1032, &ids(13, 9));
}

/// Half of a batch are masks: sums of more than 256 rows are split, and round elsewhere.
#[test]
fn the_gradient_of_a_frequent_id_is_split() {
    let Some(cuda) = cuda() else { return };
    let (vocabulary, d) = (4, 12);
    let mut ids = ids(700, 2);
    ids[5] = 3;
    let dy = values(2, ids.len() * d);
    let mut exact = widen(&values(1, vocabulary * d));
    for (&id, dy) in ids.iter().zip(widen(&dy).chunks_exact(d)) {
        for (sum, x) in exact[id as usize * d..][..d].iter_mut().zip(dy) {
            *sum += x;
        }
    }
    let gradient = |device: &Device| {
        let mut dtable =
            Tensor::from_f32(device, &[vocabulary, d], &values(1, vocabulary * d)).unwrap();
        let dy = Tensor::from_f32(device, &[ids.len(), d], &dy).unwrap();
        let backend = device.backend();
        backend.embedding_backward(&dy, &ids, &mut dtable).unwrap();
        dtable.to_vec_f32().unwrap()
    };
    let (got, scalar) = (gradient(&cuda), gradient(&cpu()));
    as_good_as_scalar("split", ids.len(), &got, &scalar, &exact);
    same_bits("rare ids", &got[2 * d..], &scalar[2 * d..]);
    same_bits("again", &gradient(&cuda), &got);
}

#[test]
fn rows_are_written_where_they_belong() {
    let Some(cuda) = cuda() else { return };
    let mut table = Tensor::from_f32(&cuda, &[5, 3], &values(1, 15)).unwrap();
    let rows = Tensor::from_f32(&cuda, &[4, 3], &values(2, 12)).unwrap();
    write_rows(&mut table, 2, &rows.narrow(0, 1, 2).unwrap()).unwrap();
    write_rows(&mut table, 5, &rows.narrow(0, 1, 0).unwrap()).unwrap();
    let (before, written) = (values(1, 15), values(2, 12));
    let expected = [&before[..6], &written[3..9], &before[12..]].concat();
    same_bits("write_rows", &table.to_vec_f32().unwrap(), &expected);
    assert!(write_rows(&mut table, 4, &rows).is_err(), "past the end");
}
