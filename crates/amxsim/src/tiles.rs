//! The tile registers of a thread, and what the instructions do to them.

use crate::decode::{Instruction, Op};
use crate::dot::{self, Product};

/// Rows of a tile, at most.
pub(crate) const ROWS: usize = 16;
/// Bytes of a row, at most.
pub(crate) const ROW_BYTES: usize = 64;

/// A tile register; what is outside of its configured shape is zero.
pub(crate) type Tile = [[u8; ROW_BYTES]; ROWS];

/// A configuration as in memory: byte 0 the palette, 1 the row at which an interrupted load or
/// store goes on, 16.. bytes per row of each tile (16 bits), 48.. rows of each tile.
pub(crate) type Config = [u8; 64];

/// The processor would have refused the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault;

/// What an instruction reads and writes besides the tiles.
pub(crate) trait Memory {
    fn read(&self, address: u64, bytes: &mut [u8]);
    fn write(&mut self, address: u64, bytes: &[u8]);
}

/// The tile registers of a thread.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// Zero, or checked by [`check`].
    config: Config,
    tiles: [Tile; 8],
}

impl Tiles {
    /// As a thread begins, and after `TILERELEASE`.
    pub(crate) const NEW: Self = Self {
        config: [0; 64],
        tiles: [[[0; ROW_BYTES]; ROWS]; 8],
    };

    /// Executes an instruction that ends at `next`, with the general registers as they are.
    pub(crate) fn execute(
        &mut self,
        instruction: Instruction,
        registers: &[u64; 16],
        next: u64,
        memory: &mut impl Memory,
    ) -> Result<(), Fault> {
        match instruction.op {
            Op::LoadConfig(address) => {
                let at = address.start(registers, next);
                let mut config = [0; 64];
                memory.read(at.wrapping_add(address.stride(registers)), &mut config);
                self.configure(config)
            }
            Op::StoreConfig(address) => {
                let at = address.start(registers, next);
                memory.write(at.wrapping_add(address.stride(registers)), &self.config);
                Ok(())
            }
            Op::Release => {
                *self = Self::NEW;
                Ok(())
            }
            Op::Zero(tile) => {
                self.shape(tile)?;
                self.tiles[tile] = [[0; ROW_BYTES]; ROWS];
                self.config[1] = 0;
                Ok(())
            }
            Op::Load(tile, address) => {
                let (first, row_bytes) = self.first_row(tile)?;
                let (start, stride) = (address.start(registers, next), address.stride(registers));
                let rows = usize::from(self.config[48 + tile]);
                for (at, row) in self.tiles[tile].iter_mut().enumerate().skip(first) {
                    *row = [0; ROW_BYTES];
                    if at < rows {
                        let from = start.wrapping_add(stride.wrapping_mul(at as u64));
                        memory.read(from, &mut row[..row_bytes]);
                    }
                }
                self.config[1] = 0;
                Ok(())
            }
            Op::Store(tile, address) => {
                let (first, row_bytes) = self.first_row(tile)?;
                let (start, stride) = (address.start(registers, next), address.stride(registers));
                let rows = usize::from(self.config[48 + tile]);
                for (at, row) in self.tiles[tile][..rows].iter().enumerate().skip(first) {
                    let to = start.wrapping_add(stride.wrapping_mul(at as u64));
                    memory.write(to, &row[..row_bytes]);
                }
                self.config[1] = 0;
                Ok(())
            }
            Op::Dot(product, [c, a, b]) => self.dot(product, c, a, b),
        }
    }

    fn configure(&mut self, config: Config) -> Result<(), Fault> {
        *self = match config[0] {
            0 => Self::NEW,
            _ => Self {
                config: check(config)?,
                ..Self::NEW
            },
        };
        Ok(())
    }

    /// Rows of a configured tile, and bytes of each, a multiple of 4.
    fn shape(&self, tile: usize) -> Result<(usize, usize), Fault> {
        let shape = shape(&self.config, tile);
        if shape.0 > 0 { Ok(shape) } else { Err(Fault) }
    }

    /// The row at which a load or a store begins, and bytes per row.
    fn first_row(&self, tile: usize) -> Result<(usize, usize), Fault> {
        let (_, row_bytes) = self.shape(tile)?;
        let first = usize::from(self.config[1]);
        if first >= ROWS || row_bytes % 4 != 0 {
            return Err(Fault);
        }
        Ok((first, row_bytes))
    }

    /// `c += a b`: `c` is m x n words, `a` is m x k and `b` is k x n words of two or four values.
    fn dot(&mut self, product: Product, c: usize, a: usize, b: usize) -> Result<(), Fault> {
        if c == a || c == b || a == b {
            return Err(Fault);
        }
        let [(m, c_bytes), (a_rows, a_bytes), (k, b_bytes)] =
            [self.shape(c)?, self.shape(a)?, self.shape(b)?];
        let whole_words = [c_bytes, a_bytes, b_bytes].iter().all(|n| n % 4 == 0);
        if !whole_words || a_rows != m || b_bytes != c_bytes || a_bytes / 4 != k {
            return Err(Fault);
        }
        let mut sums = self.tiles[c];
        dot::add_product(
            product,
            &mut sums,
            &self.tiles[a],
            &self.tiles[b],
            [m, c_bytes / 4, k],
        );
        self.tiles[c] = sums;
        self.config[1] = 0;
        Ok(())
    }
}

fn shape(config: &Config, tile: usize) -> (usize, usize) {
    let row_bytes = u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]);
    (config[48 + tile].into(), row_bytes.into())
}

/// A configuration that the processor accepts.
fn check(config: Config) -> Result<Config, Fault> {
    let zeros = |range: std::ops::Range<usize>| config[range].iter().all(|&byte| byte == 0);
    let reserved_is_zero = zeros(2..16) && zeros(32..48) && zeros(56..64);
    let shapes_fit = (0..8).all(|tile| {
        let (rows, row_bytes) = shape(&config, tile);
        rows <= ROWS && row_bytes <= ROW_BYTES && (rows == 0) == (row_bytes == 0)
    });
    if config[0] == 1 && reserved_is_zero && shapes_fit {
        Ok(config)
    } else {
        Err(Fault)
    }
}
