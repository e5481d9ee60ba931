//! Modules, their variables, and their functions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::{Code, DEFAULT_SHARED, Device, MAX_DYNAMIC_SHARED, code};
use crate::decode::decode;
use crate::isa::Kernel;
use crate::ptx::{self, Init, Var, VarSpace};

/// A loaded module.
pub(crate) struct Module {
    pub(crate) kernels: BTreeMap<String, Arc<Kernel>>,
    /// Registers per thread that the machine code in the image uses, by kernel.
    pub(crate) registers: BTreeMap<String, u32>,
    /// Variables: address and bytes.
    pub(crate) variables: BTreeMap<String, (u64, usize)>,
}

/// A kernel with what a program has set for it.
pub(crate) struct Function {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) registers: u32,
    max_dynamic: AtomicI32,
}

impl Function {
    pub(crate) fn max_dynamic(&self) -> i32 {
        self.max_dynamic.load(Ordering::Relaxed)
    }

    /// Opts in to more dynamic shared memory.
    pub(crate) fn set_max_dynamic(&self, bytes: i32) -> Result<(), Code> {
        let fixed = i32::try_from(self.kernel.static_shared).unwrap_or(i32::MAX);
        if bytes < 0 || bytes > MAX_DYNAMIC_SHARED - fixed {
            return Err(code::INVALID_VALUE);
        }
        self.max_dynamic.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Blocks that fit a multiprocessor at once.
    pub(crate) fn occupancy(&self, threads: usize, dynamic: usize) -> usize {
        if threads == 0 || threads > self.kernel.max_threads as usize {
            return 0;
        }
        let warps = threads.div_ceil(32);
        // Registers are given to a warp in units of 256, shared memory in units of 128 with 1 KiB for the system.
        let registers = (self.registers as usize * 32).next_multiple_of(256) * warps;
        let shared = (self.kernel.static_shared + dynamic).next_multiple_of(128) + 1024;
        (2048 / (warps * 32))
            .min(32)
            .min(65_536 / registers.max(1))
            .min(167_936 / shared)
    }
}

impl Device {
    /// Loads the text of a module.
    pub(crate) fn load(
        &mut self,
        text: &str,
        registers: BTreeMap<String, u32>,
    ) -> Result<u64, Code> {
        let refused = |device: &mut Self, error: &ptx::PtxError| {
            device.complain(&error.to_string());
            code::INVALID_PTX
        };
        let parsed = ptx::parse(text).map_err(|error| refused(self, &error))?;
        let variables = self.place_variables(&parsed.vars)?;
        let addresses = variables
            .iter()
            .map(|(name, &(address, _))| (name.clone(), address))
            .collect();
        let mut kernels = BTreeMap::new();
        for func in parsed
            .funcs
            .iter()
            .filter(|func| func.entry && func.body.is_some())
        {
            let kernel =
                decode(&parsed, func, &addresses).map_err(|error| refused(self, &error))?;
            kernels.insert(func.name.clone(), Arc::new(kernel));
        }
        let handle = self.handle();
        self.modules.insert(
            handle,
            Module {
                kernels,
                registers,
                variables,
            },
        );
        Ok(handle)
    }

    fn place_variables(&mut self, vars: &[Var]) -> Result<BTreeMap<String, (u64, usize)>, Code> {
        let stored =
            |var: &&Var| matches!(var.space, VarSpace::Global | VarSpace::Const) && var.bytes > 0;
        let mut places = BTreeMap::new();
        for var in vars.iter().filter(stored) {
            let address = self.memory.allocate(var.bytes).ok_or(code::OUT_OF_MEMORY)?;
            places.insert(var.name.clone(), (address, var.bytes));
        }
        for var in vars.iter().filter(stored) {
            let (address, bytes) = places[&var.name];
            let mut image = vec![0; bytes];
            for (slot, value) in image.chunks_exact_mut(var.element).zip(&var.init) {
                let bits = match value {
                    Init::Int(value) => value.cast_unsigned(),
                    Init::F32(bits) => u64::from(*bits),
                    Init::F64(bits) => *bits,
                    Init::Address(name, offset) => {
                        let (target, _) = places.get(name).copied().ok_or(code::INVALID_PTX)?;
                        target.wrapping_add_signed(*offset)
                    }
                };
                slot.copy_from_slice(&bits.to_le_bytes()[..var.element]);
            }
            self.memory
                .host_range(address, bytes, true)
                .map_err(|_| code::UNKNOWN)?;
            // SAFETY: the allocation was made above with this many bytes.
            unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), address as *mut u8, bytes) };
        }
        Ok(places)
    }

    /// Unloads a module and frees its variables.
    pub(crate) fn unload(&mut self, handle: u64) -> Result<(), Code> {
        let module = self.modules.remove(&handle).ok_or(code::INVALID_HANDLE)?;
        for (address, _) in module.variables.into_values() {
            self.memory.free(address);
        }
        Ok(())
    }

    /// Finds a kernel of a module.
    pub(crate) fn function(&mut self, module: u64, name: &str) -> Result<u64, Code> {
        let module = self.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
        let kernel = Arc::clone(module.kernels.get(name).ok_or(code::NOT_FOUND)?);
        let registers = module.registers.get(name).copied().unwrap_or(32);
        let fixed = i32::try_from(kernel.static_shared).unwrap_or(i32::MAX);
        let function = Function {
            kernel,
            registers,
            max_dynamic: AtomicI32::new(DEFAULT_SHARED - fixed),
        };
        let handle = self.handle();
        self.functions.insert(handle, Arc::new(function));
        Ok(handle)
    }
}
