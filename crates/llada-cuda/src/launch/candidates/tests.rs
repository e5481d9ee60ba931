//! Grids cover all rows and entries, and blocks fit every device.

use super::*;

const OP: &str = "candidates";
/// Shared memory of a block on the devices that have the least, compute capability 8.6 and 12.0,
/// without what the kernels have besides.
const MOST_SHARED: u32 = (99 << 10) - 1024;
const BF16: Operands = Operands::Values(DType::Bf16);
const F32: Operands = Operands::Values(DType::F32);

#[test]
fn small_batches_read_the_head_once() {
    for (operands, rows) in [BF16, F32]
        .into_iter()
        .flat_map(|operands| (1..=64).map(move |rows| (operands, rows)))
    {
        let tile = HeadTile::of(operands, rows);
        let grid = tile.plan(OP, [rows, 1], 126_464).unwrap().grid;
        assert_eq!(grid, [1, 988, 1], "{operands:?} {rows}");
    }
    let guided = HeadTile::of(BF16, 2 * 64);
    assert_eq!(guided.plan(OP, [64, 2], 300).unwrap().grid, [1, 3, 1]);
}

#[test]
fn blocks_fit_every_device() {
    for (operands, rows) in [BF16, F32, Operands::Logits]
        .into_iter()
        .flat_map(|operands| [16, 32, 64, 128].map(|rows| (operands, rows)))
    {
        let tile = HeadTile::of(operands, rows);
        let plan = tile.plan(OP, [1, 1], 1).unwrap();
        assert!(plan.shared_bytes <= MOST_SHARED, "{tile:?}");
        assert_eq!(plan.block % 32, 0);
    }
}

#[test]
fn grids_cover_ragged_shapes() {
    let grid = |rows, logits, entries| HeadTile::Bf16R128.plan(OP, [rows, logits], entries);
    assert_eq!(grid(129, 1, 129).unwrap().grid, [2, 2, 1]);
    assert_eq!(grid(129, 2, 128).unwrap().grid, [3, 1, 1]);
    assert_eq!(grid(0, 1, 128).unwrap().grid, [0, 1, 1]);
    assert_eq!(grid(1, 1, 0).unwrap().grid, [1, 0, 1]);
    assert!(grid(1, 1, 65_536 * TILE).is_err());
    assert_eq!(merge(OP, 5).unwrap().grid, [2, 1, 1]);
}

#[test]
fn passes_cover_all_rows_in_order_and_bound_the_partials() {
    let all: Vec<_> = candidate_passes(20_000, 126_464).collect();
    assert_eq!(all[0], 0..8448);
    assert_eq!(all.last(), Some(&(16_896..20_000)));
    assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(candidate_passes(0, 10).count(), 0);
    let mut one = candidate_passes(5, 0);
    assert_eq!((one.next(), one.next()), (Some(0..5), None));
}
