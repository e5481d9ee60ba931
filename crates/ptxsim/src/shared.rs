//! Shared memory of a block, and what check mode knows of each of its bytes.

use crate::memory::Fault;

/// What is known of a byte.
#[derive(Debug, Clone, Copy, Default)]
struct Shadow {
    written: bool,
    /// An asynchronous copy will write it.
    in_flight: bool,
    /// Warp and barrier count, plus one, of the last write; 0 for none.
    writer: u16,
    write_epoch: u32,
    /// The same of the last read; [`MANY`] if several warps read it.
    reader: u16,
    read_epoch: u32,
}

const MANY: u16 = u16::MAX;

/// Who accesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accessor {
    pub(crate) warp: u16,
    /// Barriers that the block has passed.
    pub(crate) epoch: u32,
}

/// The memory; without a shadow unless it is checked.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
}

impl Shared {
    /// Bytes of NaNs.
    pub(crate) fn new(n: usize, checked: bool) -> Self {
        let shadow = if checked { n } else { 0 };
        Self {
            bytes: vec![0xff; n],
            shadow: vec![Shadow::default(); shadow],
        }
    }

    /// For the next block.
    pub(crate) fn reset(&mut self) {
        self.bytes.fill(0xff);
        self.shadow.fill(Shadow::default());
    }

    #[inline(always)]
    fn range(&self, at: u64, n: u32) -> Result<std::ops::Range<usize>, Fault> {
        let size = self.bytes.len() as u64;
        if at >= size || size - at < u64::from(n) {
            let text = format!("access outside of shared memory, {n} bytes at {at} of {size}");
            return Err(Fault::Address(text));
        }
        if !at.is_multiple_of(u64::from(n)) && n <= 16 {
            return Err(crate::memory::misaligned("shared", at, n));
        }
        Ok(at as usize..at as usize + n as usize)
    }

    #[inline(always)]
    pub(crate) fn read(&mut self, at: u64, n: u32, who: Accessor) -> Result<&[u8], Fault> {
        let range = self.range(at, n)?;
        if !self.shadow.is_empty() {
            self.check_read(range.clone(), who)?;
        }
        Ok(&self.bytes[range])
    }

    #[inline(always)]
    pub(crate) fn write(&mut self, at: u64, n: u32, who: Accessor) -> Result<&mut [u8], Fault> {
        let range = self.range(at, n)?;
        if !self.shadow.is_empty() {
            self.check_write(range.clone(), who)?;
        }
        Ok(&mut self.bytes[range])
    }

    /// For an atomic operation, which may meet those of other warps.
    pub(crate) fn atomic(&mut self, at: u64, n: u32, who: Accessor) -> Result<&mut [u8], Fault> {
        let range = self.range(at, n)?;
        if self
            .shadow
            .iter()
            .skip(range.start)
            .take(n as usize)
            .any(|shadow| !shadow.written)
        {
            let text = format!("atomic on shared memory that was never written, byte {at}");
            return Err(Fault::Address(text));
        }
        for shadow in self.shadow.iter_mut().skip(range.start).take(n as usize) {
            shadow.writer = who.warp;
        }
        Ok(&mut self.bytes[range])
    }

    #[inline(never)]
    fn check_read(&mut self, range: std::ops::Range<usize>, who: Accessor) -> Result<(), Fault> {
        for at in range {
            let shadow = &mut self.shadow[at];
            let fault = |what: &str| {
                Err(Fault::Address(format!(
                    "read of shared memory {what}, byte {at}"
                )))
            };
            if shadow.in_flight {
                return fault("that an asynchronous copy has not reached (a wait is missing)");
            }
            if !shadow.written {
                return fault("that was never written");
            }
            if shadow.write_epoch == who.epoch + 1 && shadow.writer != who.warp {
                return fault("that another warp wrote since the last barrier (a race)");
            }
            let first = shadow.read_epoch != who.epoch + 1;
            shadow.reader = match first || shadow.reader == who.warp {
                true => who.warp,
                false => MANY,
            };
            shadow.read_epoch = who.epoch + 1;
        }
        Ok(())
    }

    #[inline(never)]
    fn check_write(&mut self, range: std::ops::Range<usize>, who: Accessor) -> Result<(), Fault> {
        for at in range {
            let shadow = &mut self.shadow[at];
            let fault = |what: &str| {
                Err(Fault::Address(format!(
                    "write to shared memory {what}, byte {at}"
                )))
            };
            if shadow.write_epoch == who.epoch + 1 && shadow.writer != who.warp {
                return fault("that another warp wrote since the last barrier (a race)");
            }
            if shadow.read_epoch == who.epoch + 1 && shadow.reader != who.warp {
                return fault("that another warp read since the last barrier (a race)");
            }
            if shadow.in_flight {
                return fault("that an asynchronous copy has not reached (a wait is missing)");
            }
            shadow.written = true;
            shadow.writer = who.warp;
            shadow.write_epoch = who.epoch + 1;
        }
        Ok(())
    }

    /// An asynchronous copy to these bytes begins: counts as a write, and nobody may read them.
    pub(crate) fn begin_copy(&mut self, at: u64, n: u32, who: Accessor) -> Result<(), Fault> {
        let range = self.range(at, n)?;
        if self.shadow.is_empty() {
            return Ok(());
        }
        self.check_write(range.clone(), who)?;
        for at in range {
            self.shadow[at].in_flight = true;
        }
        Ok(())
    }

    /// It lands. Whoever reads it from another warp needs a barrier after this.
    pub(crate) fn land(&mut self, at: u64, bytes: &[u8], who: Accessor) {
        let range = at as usize..at as usize + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        if !self.shadow.is_empty() {
            for at in range {
                let shadow = &mut self.shadow[at];
                shadow.in_flight = false;
                shadow.writer = who.warp;
                shadow.write_epoch = who.epoch + 1;
            }
        }
    }
}
