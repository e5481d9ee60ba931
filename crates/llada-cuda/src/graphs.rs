//! Recordings of repeated computations as CUDA graphs: a forward pass of many small launches
//! becomes one.
//!
//! The first computation under a key runs as it is, which loads its kernels and puts its small
//! arrays on the device; the second is recorded; from then on it is repeated. Memory that it takes
//! for itself comes from a pool that only recordings use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::result;
use cudarc::driver::sys::{CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode};
use llada_tensor::backend::{Recorder, Step};
use llada_tensor::{Error, Result, Tensor};

use crate::context::Context;
use crate::memory::Scratch;

/// Recordings that are kept; the oldest is forgotten first.
const KEPT: usize = 64;

/// The recordings of one model.
pub(crate) struct Graphs {
    cx: Arc<Context>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Keys that have been computed, with how often, and what was recorded.
    seen: BTreeMap<Vec<u32>, Recorded>,
    /// Counts calls, to find the oldest.
    clock: u64,
}

struct Recorded {
    last_use: u64,
    outcome: Outcome,
}

/// What is known of a computation.
enum Outcome {
    RanOnce,
    Graph(Graph),
    /// It does what cannot be recorded.
    Refused,
}

/// A recording, and the memory that it reads and writes beside that of the pool.
struct Graph {
    exec: CUgraphExec,
    inputs: Vec<Arc<Scratch>>,
    /// Small arrays that stayed as they were.
    _kept: Vec<Arc<Scratch>>,
    output: Tensor,
}

// SAFETY: a handle of the driver, which may be used from any thread; one uses it at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
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

impl Graphs {
    pub(crate) fn new(cx: Arc<Context>) -> Self {
        Self {
            cx,
            state: Mutex::default(),
        }
    }

    /// Records `body`; `None` if it did something that cannot be repeated.
    fn record(
        &self,
        step: Step<'_>,
        body: &mut dyn FnMut() -> Result<Tensor>,
    ) -> Result<Option<Graph>> {
        let allocator = self.cx.allocator();
        let stream = allocator.stream().cu_stream();
        let inputs = step.inputs.iter().map(|values| {
            let memory = self.cx.scratch(size_of_val(*values))?;
            Ok(Arc::new(memory))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let slots = step.inputs.iter().zip(&inputs);
        let slots = slots.map(|(values, memory)| (values.as_ptr() as usize, Arc::clone(memory)));

        let recording = allocator.record();
        let _bound = allocator.bind()?;
        self.cx.begin_recording(slots.collect());
        // Relaxed: memory may be allocated meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is the context's own.
        let begun = unsafe { result::stream::begin_capture(stream, mode) };
        let output = begun
            .map_err(allocator.failed("cuStreamBeginCapture"))
            .and_then(|()| body());
        let kept = self.cx.end_recording();
        if begun.is_err() {
            return Ok(None);
        }
        // SAFETY: the capture was begun.
        let graph = unsafe { result::stream::end_capture(stream) };
        drop(recording);
        let (Ok(output), Ok(graph)) = (output, graph) else {
            return Ok(None);
        };
        if graph.is_null() {
            return Ok(None);
        }
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
        // SAFETY: the graph was just made, and is not used after it is destroyed.
        let exec = unsafe {
            let exec = result::graph::instantiate(graph, flags);
            let _ = result::graph::destroy(graph);
            exec
        };
        Ok(exec.ok().map(|exec| Graph {
            exec,
            inputs,
            _kept: kept,
            output,
        }))
    }

    /// Asks for everything at once, with new inputs.
    fn repeat(&self, graph: &Graph, step: Step<'_>) -> Result<Tensor> {
        let allocator = self.cx.allocator();
        for (memory, values) in graph.inputs.iter().zip(step.inputs) {
            allocator.upload(memory.pointer(), bytemuck::cast_slice(values))?;
        }
        {
            let _bound = allocator.bind()?;
            // SAFETY: its memory is alive: weights by the caller, the rest by the graph and the pool
            // of recordings.
            unsafe { result::graph::launch(graph.exec, allocator.stream().cu_stream()) }
                .map_err(allocator.failed("cuGraphLaunch"))?;
        }
        // The next repetition writes to the same memory.
        graph.output.to_dtype(graph.output.dtype())
    }
}

impl Recorder for Graphs {
    fn run(&self, step: Step<'_>, body: &mut dyn FnMut() -> Result<Tensor>) -> Result<Tensor> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        if let Some(recorded) = state.seen.get_mut(step.key) {
            recorded.last_use = now;
            if let Outcome::RanOnce = recorded.outcome {
                recorded.outcome = match self.record(step, body)? {
                    Some(graph) => Outcome::Graph(graph),
                    None => Outcome::Refused,
                };
            }
            return match &recorded.outcome {
                Outcome::Graph(graph) => self.repeat(graph, step),
                _ => body(),
            };
        }
        if state.seen.len() == KEPT {
            let oldest = state
                .seen
                .iter()
                .min_by_key(|(_, recorded)| recorded.last_use);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                state.seen.remove(&key);
            }
        }
        let recorded = Recorded {
            last_use: now,
            outcome: Outcome::RanOnce,
        };
        state.seen.insert(step.key.to_vec(), recorded);
        body()
    }
}

/// An error of what cannot be recorded.
pub(crate) fn not_recordable(what: &'static str) -> Error {
    Error::InvalidArgument {
        op: "recording",
        what,
    }
}
