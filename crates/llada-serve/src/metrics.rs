//! Figures for Prometheus.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use llada::sample::Output;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::queue::{Limits, Queue};

/// What an answer was to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answered {
    /// The path as the router has it.
    pub(crate) path: String,
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Path {
    pub(crate) path: String,
}

/// All figures; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    running: Gauge,
    waiting: Gauge,
    bytes: Gauge,
    tokens: Counter,
    passes: Counter,
    rows: Counter,
    pub(crate) requests: Family<Answered, Counter>,
    pub(crate) seconds: Family<Path, Histogram>,
    /// From admission to the first settled token of a sequence.
    pub(crate) first_settled: Histogram,
}

/// A millisecond to half an hour.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 21))
}

impl Metrics {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut registry = Registry::with_prefix("llada");
        let (running, waiting, bytes) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (tokens, passes, rows) = (Counter::default(), Counter::default(), Counter::default());
        let requests = Family::<Answered, Counter>::default();
        let of_path = Family::<Path, Histogram>::new_with_constructor(seconds);
        let first_settled = seconds();
        let queue_limit: Gauge<f64, AtomicU64> = Gauge::default();
        queue_limit.set(limits.max_waiting as f64);
        let memory_limit: Gauge<f64, AtomicU64> = Gauge::default();
        memory_limit.set(limits.memory_bytes as f64);
        registry.register("requests_running", "Sequences that are worked on", running.clone());
        registry.register("requests_waiting", "Sequences that wait", waiting.clone());
        registry.register("queue_limit", "Sequences that may wait", queue_limit);
        let help = "What running sequences may hold and do hold";
        registry.register_with_unit("held", help, Unit::Bytes, bytes.clone());
        let help = "What running sequences may hold";
        registry.register_with_unit("held_limit", help, Unit::Bytes, memory_limit);
        registry.register("generated_tokens", "Tokens of answers, EOS and what follows included", tokens.clone());
        registry.register("forward_passes", "Forward passes of sequences", passes.clone());
        registry.register("computed_rows", "Positions that passes have computed", rows.clone());
        registry.register("http_requests", "Answers by path and status", requests.clone());
        let help = "Time to an answer's headers, of a stream to its first";
        registry.register_with_unit("http_request", help, Unit::Seconds, of_path.clone());
        let help = "From admission to the first settled token of a sequence";
        registry.register_with_unit("first_settled", help, Unit::Seconds, first_settled.clone());
        Self {
            registry: Arc::new(registry),
            running,
            waiting,
            bytes,
            tokens,
            passes,
            rows,
            requests,
            seconds: of_path,
            first_settled,
        }
    }

    pub(crate) fn update(&self, queue: &Queue) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.running.set(number(queue.n_running()));
        self.waiting.set(number(queue.n_waiting()));
        self.bytes.set(number(queue.bytes()));
    }

    pub(crate) fn written(&self, output: &Output) {
        self.tokens.inc_by(output.answer().len() as u64);
        self.passes.inc_by(output.nfe as u64);
        self.rows.inc_by(output.rows as u64);
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
