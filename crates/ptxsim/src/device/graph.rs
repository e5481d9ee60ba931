//! Graphs: work that a stream's capture collects, to be queued again and again.

use std::collections::BTreeMap;

use super::stream::Work;
use super::{Code, Device, code};

/// Graphs and what has been made of them.
#[derive(Default)]
pub(crate) struct Graphs {
    graphs: BTreeMap<u64, Graph>,
    executables: BTreeMap<u64, Vec<Work>>,
}

#[derive(Default)]
struct Graph {
    work: Vec<Work>,
    capturing: bool,
}

impl Graphs {
    /// Adds captured work. A free is left out: the memory stays as long as the graph may run.
    pub(crate) fn add(&mut self, graph: u64, work: Work) -> Result<(), Code> {
        let graph = self.graphs.get_mut(&graph).ok_or(code::INVALID_HANDLE)?;
        if !matches!(work, Work::Free { .. }) {
            graph.work.push(work);
        }
        Ok(())
    }

    pub(crate) fn is_capturing(&self, graph: u64) -> bool {
        self.graphs.get(&graph).is_some_and(|graph| graph.capturing)
    }

    pub(crate) fn len(&self, graph: u64) -> Result<usize, Code> {
        self.graphs
            .get(&graph)
            .map(|graph| graph.work.len())
            .ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn destroy(&mut self, graph: u64) -> Result<(), Code> {
        self.graphs
            .remove(&graph)
            .map(|_| ())
            .ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn destroy_executable(&mut self, executable: u64) -> Result<(), Code> {
        self.executables
            .remove(&executable)
            .map(|_| ())
            .ok_or(code::INVALID_HANDLE)
    }
}

impl Device {
    /// Sends a stream's work to a new graph from now on.
    pub(crate) fn begin_capture(&mut self, stream: u64) -> Result<(), Code> {
        self.health()?;
        if self.capture_of(stream)?.is_some() {
            return Err(code::STREAM_CAPTURE_UNSUPPORTED);
        }
        let handle = self.handle();
        self.graphs.graphs.insert(
            handle,
            Graph {
                work: Vec::new(),
                capturing: true,
            },
        );
        self.set_capture(stream, Some(handle))
    }

    /// Ends a capture, in all streams that have joined it.
    pub(crate) fn end_capture(&mut self, stream: u64) -> Result<u64, Code> {
        let handle = self.capture_of(stream)?.ok_or(code::INVALID_VALUE)?;
        for stream in self
            .streams
            .values_mut()
            .filter(|stream| stream.capture == Some(handle))
        {
            stream.capture = None;
        }
        if let Some(graph) = self.graphs.graphs.get_mut(&handle) {
            graph.capturing = false;
        }
        Ok(handle)
    }

    /// Makes a graph ready to run.
    pub(crate) fn instantiate(&mut self, graph: u64) -> Result<u64, Code> {
        let work = self
            .graphs
            .graphs
            .get(&graph)
            .ok_or(code::INVALID_HANDLE)?
            .work
            .clone();
        let handle = self.handle();
        self.graphs.executables.insert(handle, work);
        Ok(handle)
    }

    /// Queues all the work of a graph.
    pub(crate) fn launch_graph(&mut self, executable: u64, stream: u64) -> Result<(), Code> {
        let work = self
            .graphs
            .executables
            .get(&executable)
            .ok_or(code::INVALID_HANDLE)?
            .clone();
        for entry in work {
            self.enqueue(stream, entry)?;
        }
        Ok(())
    }
}
