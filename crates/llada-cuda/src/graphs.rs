//! Recordings of repeated computations as CUDA graphs: a forward pass, or a whole step of sampling,
//! of many small launches becomes one.
//!
//! The first computation under a key runs as it is, which loads its kernels and puts its small
//! arrays on the device; the second is recorded; from then on it is repeated. Memory that it takes
//! for itself comes from a pool that only recordings use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result;
use cudarc::driver::sys::{CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode};
use llada_diffusion::{Choose, Denoiser, Denoising, DenoisingStep};
use llada_kernels::args::LladaCandidate;
use llada_tensor::backend::{Candidate, CandidateArgs, DeviceMemory as _, Noise, Recorder, Step};
use llada_tensor::{Error, Result, Tensor};

use crate::context::{Context, Input};
use crate::memory::{Exclusive, Scratch};
use crate::ops::candidates;
use crate::ops::remask::{self, Masks, RULE, rule_words};

/// Recordings of each kind that are kept; the oldest is forgotten first.
const KEPT: usize = 64;

/// The recordings of one model.
pub(crate) struct Graphs {
    cx: Arc<Context>,
    /// Forward passes, with their hidden states.
    passes: Mutex<Recordings<Tensor>>,
    /// Steps of sampling, with their candidates.
    steps: Mutex<Recordings<Scratch>>,
}

/// What is known under each key.
struct Recordings<T> {
    seen: BTreeMap<Vec<u32>, Recorded<T>>,
    /// Counts calls, to find the oldest.
    clock: u64,
}

struct Recorded<T> {
    last_use: u64,
    outcome: Outcome<T>,
}

/// What is known of a computation.
enum Outcome<T> {
    New,
    RanOnce,
    Graph(Graph<T>),
    /// It does what cannot be recorded.
    Refused,
}

/// A recording, and the memory that it reads and writes beside that of the pool.
struct Graph<T> {
    exec: CUgraphExec,
    inputs: Vec<Arc<Scratch>>,
    /// Small arrays that stayed as they were.
    _kept: Vec<Arc<Scratch>>,
    output: T,
}

// SAFETY: a handle of the driver, which may be used from any thread; one uses it at a time.
unsafe impl<T: Send> Send for Graph<T> {}

impl<T> Drop for Graph<T> {
    fn drop(&mut self) {
        // SAFETY: it was instantiated, and nobody else has the handle. The driver waits for a
        // repetition that is still running.
        let _ = unsafe { result::graph::exec_destroy(self.exec) };
    }
}

impl fmt::Debug for Graphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graphs").finish_non_exhaustive()
    }
}

impl<T> Default for Recordings<T> {
    fn default() -> Self {
        let (seen, clock) = (BTreeMap::new(), 0);
        Self { seen, clock }
    }
}

impl<T> Recordings<T> {
    /// What is known under a key.
    fn find(&mut self, key: &[u32]) -> &mut Outcome<T> {
        self.clock += 1;
        if self.seen.len() == KEPT && !self.seen.contains_key(key) {
            let by_use = |(_, recorded): &(&Vec<u32>, &Recorded<T>)| recorded.last_use;
            let oldest = self.seen.iter().min_by_key(by_use);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.seen.remove(&key);
            }
        }
        let recorded = self.seen.entry(key.to_vec()).or_insert(Recorded {
            last_use: 0,
            outcome: Outcome::New,
        });
        recorded.last_use = self.clock;
        &mut recorded.outcome
    }
}

impl<T> Outcome<T> {
    /// After the computation has run as it is.
    fn ran(&mut self) {
        if let Self::New = self {
            *self = Self::RanOnce;
        }
    }
}

impl Graphs {
    pub(crate) fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            passes: Mutex::default(),
            steps: Mutex::default(),
        }
    }

    /// Memory of the small arrays that change.
    fn memory(&self, sizes: &[usize]) -> Result<Vec<Arc<Scratch>>> {
        let memory = |&bytes: &usize| Ok(Arc::new(self.cx.scratch(bytes)?));
        sizes.iter().map(memory).collect()
    }

    /// Records `body`, which finds arrays of the host in the memory of `inputs`; refused if it
    /// does something that cannot be repeated.
    fn record<T>(
        &self,
        exclusive: &Exclusive<'_>,
        inputs: Vec<Input>,
        body: impl FnOnce() -> Result<T>,
    ) -> Result<Outcome<T>> {
        let allocator = self.cx.allocator();
        let stream = allocator.stream().cu_stream();
        let memory = inputs.iter().map(|(_, memory)| Arc::clone(memory));
        let memory = memory.collect();

        let recording = exclusive.record();
        let _bound = allocator.bind()?;
        self.cx.bind_inputs(inputs);
        // Relaxed: memory may be allocated meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is the context's own.
        let begun = unsafe { result::stream::begin_capture(stream, mode) };
        let output = begun
            .map_err(allocator.failed("cuStreamBeginCapture"))
            .and_then(|()| body());
        let kept = self.cx.unbind_inputs();
        if begun.is_err() {
            return Ok(Outcome::Refused);
        }
        // SAFETY: the capture was begun.
        let graph = unsafe { result::stream::end_capture(stream) };
        drop(recording);
        let (Ok(output), Ok(graph)) = (output, graph) else {
            return Ok(Outcome::Refused);
        };
        if graph.is_null() {
            return Ok(Outcome::Refused);
        }
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
        // SAFETY: the graph was just made, and is not used after it is destroyed.
        let exec = unsafe {
            let exec = result::graph::instantiate(graph, flags);
            let _ = result::graph::destroy(graph);
            exec
        };
        Ok(exec.map_or(Outcome::Refused, |exec| {
            Outcome::Graph(Graph {
                exec,
                inputs: memory,
                _kept: kept,
                output,
            })
        }))
    }

    /// Asks for everything of a recording at once.
    fn repeat<T>(&self, graph: &Graph<T>) -> Result<()> {
        let allocator = self.cx.allocator();
        let _bound = allocator.bind()?;
        // SAFETY: its memory is alive: weights by the caller, the rest by the graph and the pool of
        // recordings.
        unsafe { result::graph::launch(graph.exec, allocator.stream().cu_stream()) }
            .map_err(allocator.failed("cuGraphLaunch"))
    }

    /// One step as it is: chooses tokens, and puts those that stay into the canvas.
    fn step(
        &self,
        denoising: &Denoising<'_>,
        step: &DenoisingStep<'_>,
        memory: &StepMemory,
        body: &mut dyn FnMut(&Noise<'_>, Choose<'_>) -> Result<()>,
    ) -> Result<Scratch> {
        let rows = n_rows(step);
        let mut chosen = None;
        body(&step.noise, &mut |args: &CandidateArgs<'_>| {
            let [got, expected] = [args.hidden.shape()[0], rows];
            if got != expected {
                let (op, lhs, rhs) = ("denoise", vec![got], vec![expected]);
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            let candidates = candidates::on_device(&self.cx, args)?;
            let masks = Masks {
                rules: &memory.rules,
                positions: &memory.rows,
                candidates: &candidates,
                canvas: &memory.ids,
                rows,
                sequences: step.remask.len(),
                mask_token_id: denoising.mask_token_id,
            };
            remask::launch(&self.cx, &masks)?;
            chosen = Some(candidates);
            Ok(())
        })?;
        let (op, what) = ("denoise", "the step chose no tokens");
        chosen.ok_or(Error::InvalidArgument { op, what })
    }
}

/// The small arrays of a step of sampling on the device.
struct StepMemory {
    ids: Arc<Scratch>,
    rows: Arc<Scratch>,
    seeds: Arc<Scratch>,
    keys: Arc<Scratch>,
    rules: Arc<Scratch>,
}

impl StepMemory {
    fn new(memory: &[Arc<Scratch>]) -> Self {
        let [ids, rows, seeds, keys, rules] = [0, 1, 2, 3, 4].map(|i| Arc::clone(&memory[i]));
        Self {
            ids,
            rows,
            seeds,
            keys,
            rules,
        }
    }

    fn sizes(denoising: &Denoising<'_>, step: &DenoisingStep<'_>) -> [usize; 5] {
        let rows = n_rows(step);
        let noise = match step.noise {
            Noise::Philox { .. } => rows,
            _ => 0,
        };
        [
            size_of_val(denoising.ids),
            size_of_val(denoising.rows),
            noise * size_of::<u64>(),
            noise * size_of::<[u32; 3]>(),
            step.remask.len() * size_of::<[u32; RULE]>(),
        ]
    }

    /// Puts what a step draws and keeps on the device; returns where a body finds its arrays.
    fn set(
        &self,
        cx: &Context,
        denoising: &Denoising<'_>,
        step: &DenoisingStep<'_>,
    ) -> Result<Vec<Input>> {
        step.noise.check()?;
        let allocator = cx.allocator();
        let rules = rule_words(step.remask)?;
        allocator.upload(self.rules.pointer(), bytemuck::cast_slice(&rules))?;
        let address = |ids: &[u32]| ids.as_ptr() as usize;
        let mut addresses = [address(denoising.ids), address(denoising.rows), 0, 0, 0];
        if let Noise::Philox { seeds, keys } = step.noise {
            allocator.upload(self.seeds.pointer(), bytemuck::cast_slice(seeds))?;
            allocator.upload(self.keys.pointer(), bytemuck::cast_slice(keys))?;
            addresses[2] = seeds.as_ptr() as usize;
            addresses[3] = keys.as_ptr() as usize;
        }
        let memory = [&self.ids, &self.rows, &self.seeds, &self.keys, &self.rules];
        Ok(addresses.into_iter().zip(memory.map(Arc::clone)).collect())
    }
}

/// Candidates of a step.
fn n_rows(step: &DenoisingStep<'_>) -> usize {
    step.remask.iter().map(|rule| rule.rows).sum()
}

impl Recorder for Graphs {
    fn run(&self, step: Step<'_>, body: &mut dyn FnMut() -> Result<Tensor>) -> Result<Tensor> {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = passes.find(step.key);
        if let Outcome::RanOnce = outcome {
            let sizes: Vec<usize> = step.inputs.iter().map(|x| size_of_val(*x)).collect();
            let addresses = step.inputs.iter().map(|values| values.as_ptr() as usize);
            let inputs = addresses.zip(self.memory(&sizes)?).collect();
            let exclusive = self.cx.allocator().exclusive();
            *outcome = self.record(&exclusive, inputs, &mut *body)?;
        }
        if let Outcome::Graph(graph) = outcome {
            for (memory, values) in graph.inputs.iter().zip(step.inputs) {
                let bytes = bytemuck::cast_slice(values);
                self.cx.allocator().upload(memory.pointer(), bytes)?;
            }
            // The output may lie where another recording, which another thread repeats, puts what
            // it computes on its way; and the next repetition of this one writes there too.
            let _exclusive = self.cx.allocator().exclusive();
            self.repeat(graph)?;
            return graph.output.to_dtype(graph.output.dtype());
        }
        let output = body()?;
        outcome.ran();
        Ok(output)
    }
}

impl Denoiser for Graphs {
    fn denoise(
        &self,
        denoising: &Denoising<'_>,
        body: &mut dyn FnMut(&Noise<'_>, Choose<'_>) -> Result<()>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let Some(first) = denoising.steps.first() else {
            return Ok(Vec::new());
        };
        let (cx, rows) = (&*self.cx, n_rows(first));
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = steps.find(denoising.key);
        let memory = match outcome {
            Outcome::Graph(graph) => StepMemory::new(&graph.inputs),
            _ => StepMemory::new(&self.memory(&StepMemory::sizes(denoising, first))?),
        };
        let step_bytes = rows * size_of::<LladaCandidate>();
        let mut log = cx.scratch(denoising.steps.len() * step_bytes)?;

        let exclusive = cx.allocator().exclusive();
        for (x, memory) in [(denoising.ids, &memory.ids), (denoising.rows, &memory.rows)] {
            cx.allocator()
                .upload(memory.pointer(), bytemuck::cast_slice(x))?;
        }
        for (at, step) in denoising.steps.iter().enumerate() {
            let inputs = memory.set(cx, denoising, step)?;
            let mut as_it_is = || self.step(denoising, step, &memory, body);
            if let Outcome::RanOnce = outcome {
                *outcome = self.record(&exclusive, inputs.clone(), &mut as_it_is)?;
            }
            if let Outcome::Graph(graph) = outcome {
                self.repeat(graph)?;
                log.copy(at * step_bytes, &graph.output, 0, step_bytes)?;
            } else {
                cx.bind_inputs(inputs);
                let candidates = as_it_is();
                cx.unbind_inputs();
                log.copy(at * step_bytes, &candidates?, 0, step_bytes)?;
                outcome.ran();
            }
        }
        drop(exclusive);
        let all = candidates::read(cx, &log, denoising.steps.len() * rows)?;
        Ok(all.chunks(rows.max(1)).map(<[Candidate]>::to_vec).collect())
    }
}
