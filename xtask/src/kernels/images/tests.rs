//! Reading what the tools print.

use super::{PtxFacts, Usage, parse_ptx, parse_usage};

#[test]
fn launch_bounds_and_dynamic_shared_memory_are_read_from_ptx() {
    let text = "\
.version 9.0
.extern .shared .align 16 .b8 tiles[];
.visible .entry llada_a_fwd_f32(
.param .align 8 .b8 llada_a_fwd_f32_param_0[48]
)
.maxntid 128, 2, 1
.minnctapersm 2
{
mov.u32 %r1, tiles;
ret;
}
.visible .entry llada_b_fwd_f32(
.param .u64 llada_b_fwd_f32_param_0
)
{
mov.u32 %r1, tiles2;
ret;
}
";
    let facts = parse_ptx(text);
    let a = PtxFacts {
        max_threads: Some(256),
        uses_dynamic_shared: true,
    };
    assert_eq!(facts["llada_a_fwd_f32"], a);
    assert_eq!(facts["llada_b_fwd_f32"], PtxFacts::default());
}

#[test]
fn the_usage_of_resources_is_read() {
    let text = "Resource usage:\n Common:\n  GLOBAL:0\n Function k2:\n  \
        REG:8 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:364 TEXTURE:0\n Function k1:\n  \
        REG:24 STACK:16 SHARED:128 LOCAL:8 CONSTANT[0]:364 TEXTURE:0\n";
    let usage = parse_usage(text);
    let k1 = Usage {
        registers: 24,
        local_bytes: 24,
        shared_bytes: 128,
    };
    assert_eq!(usage["k1"], k1);
    assert_eq!(usage["k2"].registers, 8);
}
