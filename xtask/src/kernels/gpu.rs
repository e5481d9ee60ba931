//! What the GPUs have, and how many blocks of a kernel fit on a multiprocessor.

/// A GPU that stands for its architecture.
#[derive(Debug)]
pub(super) struct Gpu {
    /// As in `sm_80`.
    pub(super) arch: &'static str,
    pub(super) name: &'static str,
    /// Shared memory of a multiprocessor.
    shared_bytes: u32,
    max_threads: u32,
    max_blocks: u32,
    /// Dense products of bf16 with f32 sums.
    pub(super) tensor_tflops: f64,
    pub(super) f32_tflops: f64,
    pub(super) gigabytes_per_second: f64,
}

/// From the data sheets and the table of compute capabilities in the CUDA programming guide.
pub(super) const GPUS: &[Gpu] = &[
    gpu("80", "A100 SXM", 164, [2048, 32], [312.0, 19.5], 2039.0),
    gpu("86", "RTX 3090", 100, [1536, 16], [71.0, 35.6], 936.0),
    gpu("89", "RTX 4090", 100, [1536, 24], [165.2, 82.6], 1008.0),
    gpu("90a", "H100 SXM", 228, [2048, 32], [989.0, 66.9], 3350.0),
    gpu("100", "B200", 228, [2048, 32], [2250.0, 75.0], 8000.0),
    gpu("120", "RTX 5090", 100, [1536, 24], [209.5, 104.8], 1792.0),
];

const fn gpu(
    arch: &'static str,
    name: &'static str,
    shared_kib: u32,
    [max_threads, max_blocks]: [u32; 2],
    [tensor_tflops, f32_tflops]: [f64; 2],
    gigabytes_per_second: f64,
) -> Gpu {
    Gpu {
        arch,
        name,
        shared_bytes: shared_kib << 10,
        max_threads,
        max_blocks,
        tensor_tflops,
        f32_tflops,
        gigabytes_per_second,
    }
}

const REGISTERS: u32 = 65_536;
/// Registers are given to warps in pieces of this size, from a quarter of the registers each.
const REGISTER_PIECE: u32 = 256;
const PARTITIONS: u32 = 4;
const SHARED_PIECE: u32 = 128;
/// What the system takes of the shared memory of each block.
pub(super) const RESERVED_SHARED: u32 = 1024;
const WARP: u32 = 32;

/// What a block of a kernel takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footprint {
    pub(super) threads: u32,
    pub(super) registers: u32,
    /// Static and dynamic, without what the system takes.
    pub(super) shared_bytes: u32,
}

/// How many blocks run at once on a multiprocessor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Occupancy {
    pub(super) blocks: u32,
    /// What allows no more.
    pub(super) limits: Vec<&'static str>,
    /// Share of the threads that a multiprocessor can hold.
    pub(super) share: f64,
}

impl Gpu {
    pub(super) fn of(arch: &str) -> Option<&'static Self> {
        GPUS.iter().find(|gpu| gpu.arch == arch)
    }

    pub(super) fn occupancy(&self, footprint: Footprint) -> Occupancy {
        let warps = footprint.threads.div_ceil(WARP).max(1);
        let warp_registers = (footprint.registers.max(1) * WARP).next_multiple_of(REGISTER_PIECE);
        let warps_by_registers = PARTITIONS * (REGISTERS / PARTITIONS / warp_registers);
        let shared = (footprint.shared_bytes + RESERVED_SHARED).next_multiple_of(SHARED_PIECE);
        let limits = [
            ("registers", warps_by_registers / warps),
            ("shared", self.shared_bytes / shared),
            ("threads", self.max_threads / (warps * WARP)),
            ("blocks", self.max_blocks),
        ];
        let blocks = limits.iter().map(|&(_, most)| most).min().unwrap_or(0);
        let nearest = limits.iter().filter(|&&(_, most)| most == blocks);
        Occupancy {
            blocks,
            limits: nearest.map(|&(name, _)| name).collect(),
            share: f64::from(blocks * warps * WARP) / f64::from(self.max_threads),
        }
    }
}

#[cfg(test)]
mod tests;
