//! What every op works with: the device, its memory and its kernels.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytemuck::{AnyBitPattern, NoUninit};
use cudarc::driver::result;
use cudarc::driver::sys::{CUfunction, CUfunction_attribute, CUmodule};
use llada_tensor::backend::{DeviceMemory as _, Storage};
use llada_tensor::{CpuConfig, DType, Device, Error, Result, Tensor};

use crate::error::unusable;
use crate::launch::LaunchPlan;
use crate::memory::{Allocator, Memory, Scratch};
use crate::product::GemmArgs;

/// Dynamic shared memory that a block may use without asking for more.
const SHARED_BYTES: u32 = 48 << 10;
/// Small arrays that are kept on the device because the next layer asks for the same.
const KEPT_UPLOADS: usize = 16;

/// One device: everything is launched on its stream, in order.
pub(crate) struct Context {
    allocator: Arc<Allocator>,
    modules: Mutex<Modules>,
    uploads: Mutex<VecDeque<(Vec<u8>, Arc<Scratch>)>>,
    bound: Mutex<BoundArrays>,
    gemm: Box<dyn Gemm>,
    host: OnceLock<Device>,
    name: String,
}

/// What multiplies matrices on a device, in order with all else on the stream of `cx`.
pub(crate) trait Gemm: fmt::Debug + Send + Sync {
    /// Asks for one batch of products. Deterministic: the same arguments give the same bits.
    ///
    /// # Errors
    /// If operands are not as [`GemmArgs`] says, or the device fails.
    fn gemm(&self, cx: &Context, args: &GemmArgs) -> Result<()>;
}

/// An array of the host, known by its address, and the memory that has its values.
pub(crate) type Input = (usize, Arc<Scratch>);

/// Small arrays of the thread that has the stream for itself.
#[derive(Default)]
struct BoundArrays {
    /// Those that change from one time to the next.
    inputs: Vec<Input>,
    /// Those that its recording found on the device.
    kept: Vec<Arc<Scratch>>,
}

/// Loaded images and their entries; loaded when they are first used.
#[derive(Default)]
struct Modules {
    modules: BTreeMap<&'static str, CUmodule>,
    entries: BTreeMap<&'static str, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    function: CUfunction,
    /// Dynamic shared memory that it was allowed.
    shared_bytes: u32,
}

// SAFETY: handles of the driver, which may be used from any thread.
unsafe impl Send for Modules {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(allocator: Allocator, gemm: Box<dyn Gemm>, name: String) -> Self {
        Self {
            allocator: Arc::new(allocator),
            modules: Mutex::default(),
            uploads: Mutex::default(),
            bound: Mutex::default(),
            gemm,
            host: OnceLock::new(),
            name,
        }
    }

    /// Ordinal, model, and what multiplies matrices, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn allocator(&self) -> &Arc<Allocator> {
        &self.allocator
    }

    /// Asks for a batch of products of whatever multiplies matrices here.
    ///
    /// # Errors
    /// As [`Gemm::gemm`].
    pub(crate) fn gemm(&self, args: &GemmArgs) -> Result<()> {
        self.gemm.gemm(self, args)
    }

    /// The CPU, which quantises weights while they are loaded.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub(crate) fn host(&self) -> Result<&Device> {
        if self.host.get().is_none() {
            let device = Device::cpu(CpuConfig::default())?;
            // Another thread may have been faster; then this one is dropped.
            let _ = self.host.set(device);
        }
        Ok(self.host.get().expect("it was just made"))
    }

    /// Memory of `bytes` bytes with unspecified contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn scratch(&self, bytes: usize) -> Result<Scratch> {
        self.allocator.take(bytes)
    }

    /// A small array of the host (ids, positions, offsets) on the device. The last ones are kept:
    /// all layers of a model ask for the same.
    ///
    /// # Errors
    /// As [`Self::scratch`], or if the device fails.
    pub(crate) fn upload<T: NoUninit>(&self, values: &[T]) -> Result<Arc<Scratch>> {
        if let Some(memory) = self.input(values) {
            return Ok(memory);
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let _bound = self.allocator.bind()?;
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = uploads.iter().position(|(kept, _)| kept == bytes) {
            let memory = Arc::clone(&uploads[at].1);
            self.keep(&memory);
            return Ok(memory);
        }
        let mut memory = self.scratch(bytes.len())?;
        memory.write(0, bytes)?;
        let memory = Arc::new(memory);
        if uploads.len() == KEPT_UPLOADS {
            uploads.pop_front();
        }
        uploads.push_back((bytes.to_vec(), Arc::clone(&memory)));
        Ok(memory)
    }

    /// An array of the host on the device, for one op: nothing is kept.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub(crate) fn upload_once<T: NoUninit>(&self, values: &[T]) -> Result<Arc<Scratch>> {
        if let Some(memory) = self.input(values) {
            return Ok(memory);
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let mut memory = self.scratch(bytes.len())?;
        memory.write(0, bytes)?;
        Ok(Arc::new(memory))
    }

    /// From now on these arrays are found in the memory that is given, by the thread that has the
    /// stream for itself.
    pub(crate) fn bind_inputs(&self, inputs: Vec<Input>) {
        self.bound().inputs = inputs;
    }

    /// Forgets the inputs, and returns the other arrays that a recording has found on the device.
    pub(crate) fn unbind_inputs(&self) -> Vec<Arc<Scratch>> {
        std::mem::take(&mut *self.bound()).kept
    }

    fn bound(&self) -> std::sync::MutexGuard<'_, BoundArrays> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input<T>(&self, values: &[T]) -> Option<Arc<Scratch>> {
        // The addresses of arrays without values are all alike.
        if values.is_empty() || !self.allocator.is_exclusive() {
            return None;
        }
        let (address, bound) = (values.as_ptr() as usize, self.bound());
        let found = bound.inputs.iter().find(|(input, _)| *input == address);
        found.map(|(_, memory)| Arc::clone(memory))
    }

    fn keep(&self, memory: &Arc<Scratch>) {
        if self.allocator.is_recording() {
            self.bound().kept.push(Arc::clone(memory));
        }
    }

    /// Values from the device, after all that was launched before.
    ///
    /// # Errors
    /// If the device fails: this is also where a failed launch shows.
    pub(crate) fn download<T: AnyBitPattern + NoUninit>(
        &self,
        memory: &Memory,
        out: &mut [T],
    ) -> Result<()> {
        memory.read(0, bytemuck::cast_slice_mut(out))
    }

    /// Address of an output's first element.
    ///
    /// # Errors
    /// As [`pointer`]; [`Error::SharedOutput`] if another tensor uses the same storage;
    /// [`Error::NotContiguous`].
    pub(crate) fn pointer_mut(&self, tensor: &mut Tensor) -> Result<u64> {
        let op = "output";
        tensor.expect_contiguous(op)?;
        self.rows_mut(op, tensor)
    }

    /// Address of the first element of an output whose rows may be filled up.
    ///
    /// # Errors
    /// As [`Self::pointer_mut`]; [`Error::NotContiguous`] if neighbors in a row are not next to each
    /// other.
    pub(crate) fn rows_mut(&self, op: &'static str, tensor: &mut Tensor) -> Result<u64> {
        let offset = tensor.offset() * tensor.dtype().size_bytes();
        if !matches!(tensor.strides(), [_, 1]) {
            tensor.expect_contiguous(op)?;
        }
        Ok(memory_of(tensor.storage_mut(op)?)?.pointer() + offset as u64)
    }

    /// Address of a contiguous `f32` tensor.
    ///
    /// # Errors
    /// As [`pointer`]; [`Error::DTypeMismatch`] or [`Error::NotContiguous`].
    pub(crate) fn f32s(&self, op: &'static str, tensor: &Tensor) -> Result<u64> {
        tensor.expect_dtype(op, DType::F32)?;
        self.contiguous(op, tensor)
    }

    /// Address of a contiguous tensor of any type.
    ///
    /// # Errors
    /// As [`pointer`]; [`Error::NotContiguous`].
    pub(crate) fn contiguous(&self, op: &'static str, tensor: &Tensor) -> Result<u64> {
        tensor.expect_contiguous(op)?;
        pointer(tensor)
    }

    /// Address of a contiguous `f32` output.
    ///
    /// # Errors
    /// As [`Self::pointer_mut`]; [`Error::DTypeMismatch`].
    pub(crate) fn f32s_mut(&self, op: &'static str, tensor: &mut Tensor) -> Result<u64> {
        tensor.expect_dtype(op, DType::F32)?;
        self.pointer_mut(tensor)
    }

    /// Launches an entry of an op's image with its argument struct. A grid without blocks is not
    /// launched.
    ///
    /// # Errors
    /// If the build has no such kernel, or the driver refuses. What goes wrong while it runs shows
    /// at the next [`Self::download`].
    pub(crate) fn launch<A: Copy>(
        &self,
        op: &'static str,
        entry: &'static str,
        plan: LaunchPlan,
        args: &A,
    ) -> Result<()> {
        if plan.grid.contains(&0) {
            return Ok(());
        }
        let _bound = self.allocator.bind()?;
        let function = self.entry(op, entry, plan.shared_bytes)?.function;
        let [x, y, z] = plan.grid;
        let parameters: *const A = args;
        let mut parameters = [parameters.cast_mut().cast::<c_void>()];
        let stream = self.allocator.stream().cu_stream();
        // SAFETY: the entries of an op take exactly one struct by value, which the op's file in
        // `ops` pairs with its name, and bindgen made it of the header that the entry is compiled
        // with; its addresses are of memory that is given back to this stream's allocator alone.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (plan.block, 1, 1),
                plan.shared_bytes,
                stream,
                &mut parameters,
            )
        }
        .map_err(self.allocator.failed("cuLaunchKernel"))
    }

    fn entry(&self, op: &'static str, entry: &'static str, shared_bytes: u32) -> Result<Entry> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = match modules.entries.get(entry) {
            Some(found) => *found,
            None => Entry {
                function: self.load(&mut modules, op, entry)?,
                shared_bytes: SHARED_BYTES,
            },
        };
        if shared_bytes > found.shared_bytes {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared_bytes).unwrap_or(i32::MAX);
            // SAFETY: the function is of a module that is never unloaded.
            unsafe { result::function::set_function_attribute(found.function, attribute, bytes) }
                .map_err(self.allocator.failed("cuFuncSetAttribute"))?;
            found.shared_bytes = shared_bytes;
        }
        modules.entries.insert(entry, found);
        Ok(found)
    }

    fn load(
        &self,
        modules: &mut Modules,
        op: &'static str,
        entry: &'static str,
    ) -> Result<CUfunction> {
        let missing = || {
            let reason = format!("this build has no kernel {entry}");
            unusable(self.allocator.name(), "loading a kernel", reason)
        };
        let module = match modules.modules.get(op) {
            Some(module) => *module,
            None => {
                let image = llada_kernels::IMAGES.iter().find(|image| image.op == op);
                let fatbin = image.ok_or_else(missing)?.fatbin.as_ptr();
                // SAFETY: a whole fatbin, as nvcc wrote it, whose header has its length.
                let module = unsafe { result::module::load_data(fatbin.cast()) }
                    .map_err(self.allocator.failed("cuModuleLoadData"))?;
                modules.modules.insert(op, module);
                module
            }
        };
        let name = CString::new(entry).map_err(|_| missing())?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(module, name) }
            .map_err(self.allocator.failed("cuModuleGetFunction"))
    }
}

/// Address of a tensor's first element.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is not in the memory of a CUDA device.
pub(crate) fn pointer(tensor: &Tensor) -> Result<u64> {
    let offset = (tensor.offset() * tensor.dtype().size_bytes()) as u64;
    Ok(memory_of(tensor.storage())?.pointer() + offset)
}

fn memory_of(storage: &Storage) -> Result<&Memory> {
    let (op, what) = ("cuda", "the tensor is not in the memory of this device");
    let memory = match storage {
        Storage::Device(memory) => memory.as_any().downcast_ref(),
        Storage::Host(_) => None,
    };
    memory.ok_or(Error::InvalidArgument { op, what })
}
