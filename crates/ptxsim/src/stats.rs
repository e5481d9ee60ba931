//! What a kernel did.

use std::fmt::Write as _;
use std::ops::AddAssign;

/// Counts of one kernel, over all of its launches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) launches: u64,
    pub(crate) instructions: u64,
    pub(crate) mma: u64,
    pub(crate) ldmatrix: u64,
    /// Accesses to shared memory, how many rounds they took, and how many they would have taken
    /// if no two lanes had used different words of one bank.
    pub(crate) shared_accesses: u64,
    pub(crate) shared_wavefronts: u64,
    pub(crate) shared_wavefronts_ideal: u64,
    /// Accesses to global memory, and the sectors of 32 bytes that they touched.
    pub(crate) global_requests: u64,
    pub(crate) global_sectors: u64,
    pub(crate) cp_async_bytes: u64,
    pub(crate) barriers: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.launches += other.launches;
        self.instructions += other.instructions;
        self.mma += other.mma;
        self.ldmatrix += other.ldmatrix;
        self.shared_accesses += other.shared_accesses;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_wavefronts_ideal += other.shared_wavefronts_ideal;
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.cp_async_bytes += other.cp_async_bytes;
        self.barriers += other.barriers;
    }
}

impl Stats {
    /// Counts one access to shared memory.
    pub(crate) fn count_shared(&mut self, addresses: &[(usize, u64)], bytes: u32) {
        let [rounds, ideal] = wavefronts(addresses, bytes);
        self.shared_accesses += 1;
        self.shared_wavefronts += rounds;
        self.shared_wavefronts_ideal += ideal;
    }

    /// One line of JSON.
    pub(crate) fn json(&self, kernel: &str) -> String {
        let mut text = format!("{{\"kernel\":\"{kernel}\"");
        for (name, value) in [
            ("launches", self.launches),
            ("instructions", self.instructions),
            ("mma", self.mma),
            ("ldmatrix", self.ldmatrix),
            ("shared_accesses", self.shared_accesses),
            ("shared_wavefronts", self.shared_wavefronts),
            ("shared_wavefronts_ideal", self.shared_wavefronts_ideal),
            ("global_requests", self.global_requests),
            ("global_sectors", self.global_sectors),
            ("cp_async_bytes", self.cp_async_bytes),
            ("barriers", self.barriers),
        ] {
            // Writing to a string does not fail.
            let _ = write!(text, ",\"{name}\":{value}");
        }
        text.push('}');
        text
    }
}

/// Rounds of one access to shared memory by lanes of `bytes` bytes each, and the fewest that so many
/// words can take: a round serves 32 banks of four bytes, each with one word; wide accesses go by
/// halves and quarters of the warp.
fn wavefronts(addresses: &[(usize, u64)], bytes: u32) -> [u64; 2] {
    let lanes_at_once = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let [mut rounds, mut ideal] = [0; 2];
    for part in 0..32 / lanes_at_once {
        let mut words: [Vec<u64>; 32] = Default::default();
        for &(lane, address) in addresses {
            if lane / lanes_at_once != part {
                continue;
            }
            for word in address / 4..(address + u64::from(bytes)).div_ceil(4) {
                let bank = &mut words[(word % 32) as usize];
                if !bank.contains(&word) {
                    bank.push(word);
                }
            }
        }
        rounds += words.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let distinct: usize = words.iter().map(Vec::len).sum();
        ideal += distinct.div_ceil(32) as u64;
    }
    [rounds, ideal]
}

/// Sectors of 32 bytes that lanes touch.
pub(crate) fn sectors(addresses: &[(usize, u64)], bytes: u32) -> u64 {
    let mut sectors: Vec<u64> = addresses
        .iter()
        .flat_map(|&(_, address)| address / 32..(address + u64::from(bytes)).div_ceil(32))
        .collect();
    sectors.sort_unstable();
    sectors.dedup();
    sectors.len() as u64
}
