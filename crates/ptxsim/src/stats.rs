//! Counters of a kernel's work.

use std::fmt::Write as _;

use crate::exec::regs::LANES;

/// What launches of one kernel have done.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stats {
    pub(crate) launches: u64,
    /// Instructions of a warp.
    pub(crate) instructions: u64,
    pub(crate) mma: u64,
    /// `ldmatrix` and `stmatrix`.
    pub(crate) ldmatrix: u64,
    /// Accesses to shared memory, in units of the 128 bytes that a wavefront can move.
    pub(crate) shared_ideal: u64,
    /// Wavefronts that these take: more where banks conflict.
    pub(crate) shared_wavefronts: u64,
    pub(crate) global_requests: u64,
    /// Sectors of 32 bytes that these touch.
    pub(crate) global_sectors: u64,
    pub(crate) cp_async_bytes: u64,
    pub(crate) barriers: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.launches += other.launches;
        self.instructions += other.instructions;
        self.mma += other.mma;
        self.ldmatrix += other.ldmatrix;
        self.shared_ideal += other.shared_ideal;
        self.shared_wavefronts += other.shared_wavefronts;
        self.global_requests += other.global_requests;
        self.global_sectors += other.global_sectors;
        self.cp_async_bytes += other.cp_async_bytes;
        self.barriers += other.barriers;
    }

    /// Counts the wavefronts of an access: 32 banks of 4 bytes, in which lanes that want one word share it.
    /// Lanes are served in groups that want 128 bytes together.
    pub(crate) fn count_shared(&mut self, at: &[u64; LANES], mask: u32, bytes: usize) {
        let together = (128 / bytes).clamp(1, LANES);
        for start in (0..LANES).step_by(together) {
            let mut words: Vec<u64> = (start..start + together)
                .filter(|lane| mask >> lane & 1 == 1)
                .flat_map(|lane| at[lane] / 4..(at[lane] + bytes as u64).div_ceil(4))
                .collect();
            if words.is_empty() {
                continue;
            }
            words.sort_unstable();
            words.dedup();
            let mut banks = [0_u64; 32];
            for word in &words {
                banks[(word % 32) as usize] += 1;
            }
            self.shared_ideal += (words.len() as u64).div_ceil(32);
            self.shared_wavefronts += banks.into_iter().max().unwrap_or(0);
        }
    }

    pub(crate) fn count_global(&mut self, at: &[u64; LANES], mask: u32, bytes: usize) {
        let mut sectors: Vec<u64> = (0..LANES)
            .filter(|lane| mask >> lane & 1 == 1)
            .flat_map(|lane| at[lane] / 32..=(at[lane] + bytes as u64 - 1) / 32)
            .collect();
        sectors.sort_unstable();
        sectors.dedup();
        self.global_requests += 1;
        self.global_sectors += sectors.len() as u64;
    }

    /// One JSON object, without a line break.
    pub(crate) fn json(&self, kernel: &str) -> String {
        let mut text = String::from("{");
        let name: String = kernel
            .chars()
            .filter(|c| !matches!(c, '"' | '\\'))
            .collect();
        let _ = write!(text, "\"kernel\":\"{name}\"");
        let fields = [
            ("launches", self.launches),
            ("instructions", self.instructions),
            ("mma", self.mma),
            ("ldmatrix", self.ldmatrix),
            ("shared_wavefronts_ideal", self.shared_ideal),
            ("shared_wavefronts", self.shared_wavefronts),
            ("global_requests", self.global_requests),
            ("global_sectors", self.global_sectors),
            ("cp_async_bytes", self.cp_async_bytes),
            ("barriers", self.barriers),
        ];
        for (name, value) in fields {
            let _ = write!(text, ",\"{name}\":{value}");
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests;
