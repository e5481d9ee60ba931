//! Who is next: sequences that wait for room, and what those that run hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Part;
use crate::error::ApiError;

/// Bounds of what is taken in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Sequences that are worked on together.
    pub max_running: usize,
    /// Sequences that wait; one more is refused with 429.
    pub max_waiting: usize,
    /// Bytes that all running sequences may hold: canvases, keys and values, and what a pass over
    /// them takes. The weights are not counted.
    pub memory_bytes: usize,
    /// Bytes of keys and values that each causal model keeps of requests that have ended, for those
    /// that begin alike; they are no part of `memory_bytes`.
    pub prefix_bytes: usize,
    /// Time in which a request is answered, waiting included; it may ask for less.
    pub timeout: Duration,
    /// Tokens in one call of a likelihood.
    pub max_batch_tokens: usize,
}

/// When and how soon a request is worked on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Order {
    /// Lower goes first.
    pub(crate) priority: i32,
    /// Seconds, at most those of the server.
    pub(crate) timeout: Option<f64>,
}

impl Order {
    /// When the request is given up.
    fn deadline(&self, limits: &Limits) -> Result<Instant, ApiError> {
        let asked = match self.timeout {
            None => limits.timeout,
            Some(seconds) if seconds > 0.0 => {
                Duration::try_from_secs_f64(seconds).unwrap_or(limits.timeout)
            }
            Some(_) => {
                let message = "timeout must be a positive number of seconds";
                return Err(ApiError::field("timeout", message));
            }
        };
        Ok(Instant::now() + asked.min(limits.timeout))
    }
}

/// Who asks: the name of a key, or an address.
pub(crate) type Client = Arc<str>;

/// Whose work it is, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) client: Client,
    pub(crate) priority: i32,
    pub(crate) deadline: Instant,
}

impl Ticket {
    pub(crate) fn new(client: &Client, order: Order, limits: &Limits) -> Result<Self, ApiError> {
        Ok(Self {
            client: Arc::clone(client),
            priority: order.priority,
            deadline: order.deadline(limits)?,
        })
    }
}

/// A sequence that waits.
#[derive(Debug)]
struct Waiting {
    part: Part,
    arrival: u64,
}

/// What one client has.
#[derive(Debug, Default)]
struct Share {
    waiting: usize,
    running: usize,
    /// When it was served last, in the order of admissions.
    served: u64,
}

/// The queue, and the account of what runs.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    waiting: Vec<Waiting>,
    clients: BTreeMap<Client, Share>,
    running: usize,
    bytes: usize,
    arrivals: u64,
    admissions: u64,
    /// Seconds that a sequence ran, of the newest ones.
    mean_seconds: f64,
    /// No more work comes.
    pub(crate) is_closed: bool,
    /// The engine has failed.
    pub(crate) is_dead: bool,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: Vec::new(),
            clients: BTreeMap::new(),
            running: 0,
            bytes: 0,
            arrivals: 0,
            admissions: 0,
            mean_seconds: 0.0,
            is_closed: false,
            is_dead: false,
        }
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn n_running(&self) -> usize {
        self.running
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all parts of a request in, or none. Those of a request that was taken in before and
    /// goes on (`is_further`) always have a place.
    pub(crate) fn push(&mut self, parts: Vec<Part>, is_further: bool) -> Result<(), ApiError> {
        if self.is_dead {
            return Err(ApiError::internal(
                "the engine has stopped; see the server's log",
            ));
        }
        if self.is_closed {
            return Err(ApiError::shutting_down());
        }
        let limits = &self.limits;
        if let Some(part) = parts.iter().find(|part| part.bytes > limits.memory_bytes) {
            return Err(ApiError::field(
                "max_tokens",
                format!(
                    "a sequence of this length and these settings takes {} bytes, and this server \
                     has {} for all; ask for less, or without a cache",
                    part.bytes, limits.memory_bytes
                ),
            ));
        }
        if parts.len() > limits.max_waiting {
            return Err(ApiError::field(
                "n",
                format!(
                    "{} sequences in one request: this server takes {} at most",
                    parts.len(),
                    limits.max_waiting
                ),
            ));
        }
        if !is_further && self.waiting.len() + parts.len() > limits.max_waiting {
            let waiting = self.waiting.len();
            return Err(ApiError::too_many(
                waiting,
                limits.max_waiting,
                self.seconds_to_wait(),
            ));
        }
        for part in parts {
            self.clients
                .entry(part.ticket.client.clone())
                .or_default()
                .waiting += 1;
            let arrival = self.arrivals;
            self.arrivals += 1;
            self.waiting.push(Waiting { part, arrival });
        }
        Ok(())
    }

    /// When a place should be free: half of what waits has gone on by then. Clients of OpenAI's
    /// library come again by themselves if it is less than two minutes.
    fn seconds_to_wait(&self) -> u64 {
        let rounds = self.waiting.len() as f64 / 2.0 / self.limits.max_running.max(1) as f64;
        (rounds * self.mean_seconds).ceil().clamp(1.0, 60.0) as u64
    }

    /// The next part, if there is room for it: of the lowest priority number, of the client that
    /// has least on its way, of these the one that was served longest ago, and of its parts the
    /// oldest. A large part that has to wait for room lets nothing overtake it, or it would wait
    /// for ever.
    pub(crate) fn admit(&mut self) -> Option<Part> {
        if self.running >= self.limits.max_running {
            return None;
        }
        let rank = |waiting: &Waiting| {
            let share = self.clients.get(&waiting.part.ticket.client);
            let (running, served) = share.map_or((0, 0), |share| (share.running, share.served));
            (
                waiting.part.ticket.priority,
                running,
                served,
                waiting.arrival,
            )
        };
        let (at, next) = (self.waiting.iter().enumerate()).min_by_key(|(_, part)| rank(part))?;
        if self.running > 0 && self.bytes + next.part.bytes > self.limits.memory_bytes {
            return None;
        }
        let part = self.waiting.remove(at).part;
        self.admissions += 1;
        let share = self.clients.entry(part.ticket.client.clone()).or_default();
        share.waiting -= 1;
        share.running += 1;
        share.served = self.admissions;
        self.running += 1;
        self.bytes += part.bytes;
        Some(part)
    }

    /// Takes out those that nobody waits for any more, and gives back those that came too late.
    pub(crate) fn drop_gone(&mut self, now: Instant) -> Vec<Part> {
        let is_over =
            |waiting: &Waiting| waiting.part.is_gone() || waiting.part.ticket.deadline <= now;
        let (over, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_over);
        self.waiting = rest;
        let over: Vec<Part> = over
            .into_iter()
            .map(|waiting: Waiting| waiting.part)
            .collect();
        for part in &over {
            self.forget(&part.ticket.client, |share| share.waiting -= 1);
        }
        over
    }

    /// A part that ran has ended.
    pub(crate) fn end(&mut self, client: &Client, bytes: usize, seconds: f64) {
        const NEWEST: f64 = 0.1;
        self.running -= 1;
        self.bytes -= bytes;
        self.mean_seconds += NEWEST * (seconds - self.mean_seconds);
        self.forget(client, |share| share.running -= 1);
    }

    /// Everything that waits, when the engine has failed.
    pub(crate) fn kill(&mut self) -> Vec<Part> {
        self.is_dead = true;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|waiting| waiting.part).collect()
    }

    fn forget(&mut self, client: &Client, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.clients.get_mut(client) else {
            return;
        };
        change(share);
        if share.waiting == 0 && share.running == 0 {
            self.clients.remove(client);
        }
    }
}

#[cfg(test)]
mod tests;
