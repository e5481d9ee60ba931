//! Instruction sets, detected at run time.

use crate::{Error, Result};

/// What the CPU kernels may use. A machine that has a level has those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CpuLevel {
    /// Plain Rust, the reference for all others.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, BW, VL).
    Avx512,
    /// AVX512-BF16 dot products in [`crate::Precision::Bf16`], AVX-512 for the rest.
    Avx512Bf16,
    /// AMX bf16 tiles for products in [`crate::Precision::Bf16`], AVX-512 for the rest.
    Amx,
}

impl CpuLevel {
    /// All levels, the lowest first.
    pub const ALL: [Self; 5] = [
        Self::Scalar,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// The fastest level of this machine.
    #[must_use]
    pub fn best() -> Self {
        *Self::ALL
            .iter()
            .rev()
            .find(|level| level.is_available() && level.is_fast())
            .unwrap_or(&Self::Scalar)
    }

    /// Whether the level is faster than those below it, where the machine has it.
    fn is_fast(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => super::simd::dot::is_fast(),
            _ => true,
        }
    }

    /// The levels that this machine has, the lowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|level| level.is_available())
            .collect()
    }

    /// Lower-case name, as in `LLADA_CPU_LEVEL`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Amx => "amx",
        }
    }

    /// The level of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether this machine has the level.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::simd::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::simd::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => super::simd::has_avx512_bf16(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => super::simd::has_amx(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    pub(crate) fn resolve(asked: Option<Self>) -> Result<Self> {
        let best = Self::best();
        match asked {
            None => Ok(best),
            Some(level) if level.is_available() => Ok(level),
            Some(level) => Err(Error::LevelUnavailable {
                level: level.name(),
                best: best.name(),
            }),
        }
    }
}
