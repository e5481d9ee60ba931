//! Tests of the plans.

use super::*;

const A100: Multiprocessors = Multiprocessors {
    count: 108,
    shared_bytes: 164 << 10,
};
const RTX_4090: Multiprocessors = Multiprocessors {
    count: 128,
    shared_bytes: 100 << 10,
};

fn sizes(offsets: &[usize], heads: [usize; 3]) -> Sizes {
    Sizes::new(offsets, offsets, heads).unwrap()
}

#[track_caller]
fn check_bf16(sizes: &Sizes, device: Multiprocessors, entry: &str, grid: [u32; 3], shared: u32) {
    let launch = forward_bf16(sizes, device).unwrap().unwrap();
    assert_eq!((launch.entry, launch.plan.grid), (entry, grid));
    assert_eq!((launch.plan.block, launch.plan.shared_bytes), (128, shared));
}

#[test]
fn large_tiles_if_they_fill_the_device_twice_over() {
    let wide = sizes(&[0, 1000, 5096], [32, 32, 128]);
    let (large, small) = (
        "llada_attention_fwd_bf16_d128_q128",
        "llada_attention_fwd_bf16_d128_q64",
    );
    check_bf16(&wide, A100, large, [32, 32, 2], 80 << 10);
    // Two blocks of 80 KiB do not fit.
    check_bf16(&wide, RTX_4090, small, [64, 32, 2], 48 << 10);
    // 108 blocks are enough, 96 are not.
    let few = |heads| sizes(&[0, 384], [heads, 1, 128]);
    check_bf16(&few(36), A100, large, [3, 36, 1], 80 << 10);
    check_bf16(&few(32), A100, small, [6, 32, 1], 48 << 10);
    // A window of one tile.
    let window = sizes(&[0, 64], [1000, 1, 128]);
    check_bf16(&window, A100, small, [1, 1000, 1], 48 << 10);

    let narrow = sizes(&[0, 1024], [16, 16, 64]);
    let (large, small) = (
        "llada_attention_fwd_bf16_d64_q128",
        "llada_attention_fwd_bf16_d64_q64",
    );
    check_bf16(&narrow, RTX_4090, large, [8, 16, 1], 48 << 10);
    let narrow = sizes(&[0, 65], [16, 16, 64]);
    check_bf16(&narrow, RTX_4090, small, [2, 16, 1], 32 << 10);
}

#[test]
fn tensor_cores_have_two_head_dimensions() {
    for (head_dim, has_kernel) in [(12, false), (64, true), (65, false), (128, true)] {
        let launch = forward_bf16(&sizes(&[0, 9], [1, 1, head_dim]), A100).unwrap();
        assert_eq!(launch.is_some(), has_kernel, "{head_dim}");
    }
}

#[test]
fn head_dimensions_take_the_next_larger_kernel() {
    let entry = |head_dim| {
        let launch = forward_f32(&sizes(&[0, 65], [2, 1, head_dim])).unwrap();
        assert_eq!(launch.plan.grid, [2, 2, 1]);
        launch.entry
    };
    assert_eq!([1, 64].map(entry), ["llada_attention_fwd_f32_d64"; 2]);
    assert_eq!([65, 128].map(entry), ["llada_attention_fwd_f32_d128"; 2]);
    assert_eq!([129, 256].map(entry), ["llada_attention_fwd_f32_d256"; 2]);
    assert!(Sizes::new(&[0, 1], &[0, 1], [1, 1, 257]).is_err());
}

#[test]
fn gradients_of_keys_have_a_block_per_key_head() {
    let sizes = Sizes::new(&[0, 10, 139], &[0, 200, 201], [6, 2, 12]).unwrap();
    let launches = backward_f32(&sizes, 139 * 6).unwrap();
    let grids = launches.map(|launch| launch.plan.grid);
    assert_eq!(grids, [[105, 1, 1], [3, 6, 2], [4, 2, 2]]);
    assert!(backward_bf16(&sizes).unwrap().is_none());

    for (head_dim, shared_bytes) in [(64, 49 << 10), (128, (64 << 10) + 512)] {
        let sizes = Sizes { head_dim, ..sizes };
        let plans = backward_bf16(&sizes).unwrap().unwrap();
        let plans = plans.map(|launch| launch.plan);
        assert_eq!(plans.map(|plan| plan.grid), [[3, 6, 2], [4, 2, 2]]);
        assert_eq!(plans.map(|plan| plan.shared_bytes), [shared_bytes; 2]);
    }
}

#[test]
fn nothing_to_do_is_not_launched() {
    for offsets in [&[0][..], &[0, 0, 0]] {
        let none = sizes(offsets, [2, 1, 64]);
        let bf16 = forward_bf16(&none, A100).unwrap().unwrap();
        let f32s = forward_f32(&none).unwrap();
        let backward = backward_f32(&none, 0).unwrap();
        for launch in [bf16, f32s].into_iter().chain(backward) {
            assert!(launch.plan.grid.contains(&0), "{launch:?}");
        }
    }
    assert_eq!(round(0).unwrap().plan.grid, [0, 1, 1]);
    assert_eq!(round(2049).unwrap().plan.grid, [2, 1, 1]);
}

#[test]
fn too_many_tokens_are_an_error() {
    let heads = [1, 1, 64];
    assert!(Sizes::new(&[0, 1], &[0, (1 << 30) + 1], heads).is_err());
    assert!(Sizes::new(&[0, 1 << 30], &[0, 1], heads).is_ok());
    let many = sizes(&vec![0; 65_537], heads);
    assert!(forward_f32(&many).is_err());
}
