//! The engine: one thread that takes the steps of all models' sessions, and likelihoods in between.
//!
//! The HTTP side puts parts (a sequence to write, or texts to score) into a [`Queue`] and hears of
//! them by events. A part whose receiver is gone is taken out before the next step. What is
//! written does not depend on what else runs: that is a property of [`Session`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use llada::diffusion::{Estimate, Scoring};
use llada::sample::{Edit, Ended, Output, Request, Revealed, Session, StepEvent};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue::{Limits, Queue, Ticket};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    Write(Box<Request>),
    Score(Box<Scoring>),
    /// It has moved to where it is worked on.
    Taken,
}

/// A sequence to write or texts to score, for one request.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which model, of all.
    pub(crate) model: usize,
    pub(crate) ticket: Ticket,
    /// What it holds while it runs.
    pub(crate) bytes: usize,
    pub(crate) work: Work,
    pub(crate) reply: Reply,
}

/// Where a part's events go.
///
/// They are not bounded by the channel but by the part: each position is revealed once, so that a
/// reader which never reads holds the tokens of its sequence and a few words a step. Of a process that
/// edits, a step that does so has its block besides, and the steps of a block are bounded.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Number of the part in its request.
    pub(crate) index: usize,
    pub(crate) events: UnboundedSender<(usize, Event)>,
    /// Set by who has heard enough: what is settled is all that is wanted.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Reply {
    fn send(&self, event: Event) {
        // Whoever has gone away is noticed by `is_gone`.
        let _ = self.events.send((self.index, event));
    }
}

impl Part {
    /// Whether nobody waits for it.
    pub(crate) fn is_gone(&self) -> bool {
        self.reply.events.is_closed()
    }
}

/// What happens to a part.
#[derive(Debug)]
pub(crate) enum Event {
    /// Before its first step: its canvas.
    Begun {
        canvas: Vec<u32>,
        steps: usize,
    },
    Step(Step),
    Written(Box<Output>),
    /// What was found, and the scoring, which knows the single tokens.
    Scored(Vec<Estimate>, Box<Scoring>),
    Failed(ApiError),
}

/// A step of a sequence.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// Which part of the canvas is settled.
    pub(crate) settled: Range<usize>,
    pub(crate) revealed: Vec<Revealed>,
    /// What the step has changed of what was written before.
    pub(crate) edits: Vec<Edit>,
    /// The block, as places in the canvas: what edits have moved stays in it.
    pub(crate) window: Range<usize>,
    /// Its tokens after a step that has edited; empty after any other.
    pub(crate) block: Vec<u32>,
}

/// The HTTP side's handle.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    metrics: Metrics,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole after every call: a panic elsewhere leaves it usable.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Starts the thread; `died` is told if it ends before it is asked to.
    pub(crate) fn start(
        models: Arc<Vec<Model>>,
        limits: Limits,
        metrics: Metrics,
    ) -> std::io::Result<(Self, JoinHandle<()>, oneshot::Receiver<()>)> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(limits)),
            wake: Condvar::new(),
            metrics,
        });
        let (alive, died) = oneshot::channel::<()>();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("llada-engine".to_owned())
            .spawn(move || {
                let guard = Guard {
                    shared: &of_thread,
                    _alive: alive,
                };
                run(&models, limits.prefix_bytes, &of_thread);
                drop(guard);
            })?;
        Ok((Self { shared }, thread, died))
    }

    /// Takes the parts of a request in, all or none.
    pub(crate) fn submit(&self, parts: Vec<Part>, is_further: bool) -> Result<(), ApiError> {
        let pushed = self.shared.queue().push(parts, is_further);
        self.update();
        self.shared.wake.notify_one();
        pushed
    }

    /// The work that is there is done, and then the thread ends.
    pub(crate) fn close(&self) {
        self.shared.queue().is_closed = true;
        self.shared.wake.notify_one();
    }

    fn update(&self) {
        self.shared.metrics.update(&self.shared.queue());
    }
}

/// Says that the engine is gone, whichever way its thread ends.
struct Guard<'a> {
    shared: &'a Shared,
    _alive: oneshot::Sender<()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let waiting = self.shared.queue().kill();
        for part in waiting {
            let message = "the engine has stopped; see the server's log";
            part.reply.send(Event::Failed(ApiError::internal(message)));
        }
    }
}

/// A part on its way.
struct Running {
    part: Part,
    since: Instant,
    /// Whether a token of it is settled.
    has_settled: bool,
}

/// Texts that are scored.
struct Scored {
    running: Running,
    work: Box<Scoring>,
}

/// One model's session, and its parts by their numbers in it.
struct Lane<'m> {
    session: Session<'m>,
    mask_token_id: u32,
    running: BTreeMap<usize, Running>,
}

fn run(models: &[Model], prefix_bytes: usize, shared: &Shared) {
    let mut lanes: Vec<Lane<'_>> = (models.iter())
        .map(|model| Lane {
            session: model.llada.session().keeping_prefixes(prefix_bytes),
            mask_token_id: model.llada.info().mask_token_id,
            running: BTreeMap::new(),
        })
        .collect();
    let mut scoring: VecDeque<Scored> = VecDeque::new();
    loop {
        let is_idle = scoring.is_empty() && lanes.iter().all(|lane| lane.running.is_empty());
        let Some(admitted) = next_parts(shared, is_idle) else {
            return;
        };
        for part in admitted {
            begin(&mut lanes, &mut scoring, part, shared);
        }
        drop_over(&mut lanes, &mut scoring, shared);
        for lane in &mut lanes {
            step(lane, shared);
        }
        if let Some(scored) = scoring.pop_front() {
            scoring.extend(score(models, scored, shared));
        }
        shared.metrics.update(&shared.queue());
    }
}

/// The parts that there is room for; `None` when all is done and no more will come.
fn next_parts(shared: &Shared, is_idle: bool) -> Option<Vec<Part>> {
    let mut queue = shared.queue();
    loop {
        for part in queue.drop_gone(Instant::now()) {
            part.reply.send(Event::Failed(ApiError::deadline()));
        }
        let admitted: Vec<Part> = std::iter::from_fn(|| queue.admit()).collect();
        if !admitted.is_empty() || !is_idle {
            return Some(admitted);
        }
        if queue.is_closed {
            return None;
        }
        queue = (shared.wake.wait(queue)).unwrap_or_else(PoisonError::into_inner);
    }
}

fn begin(lanes: &mut [Lane<'_>], scoring: &mut VecDeque<Scored>, mut part: Part, shared: &Shared) {
    let work = std::mem::replace(&mut part.work, Work::Taken);
    let running = Running {
        part,
        since: Instant::now(),
        has_settled: false,
    };
    match work {
        Work::Write(request) => {
            let lane = &mut lanes[running.part.model];
            match lane.session.submit(*request) {
                Ok(number) => {
                    lane.running.insert(number, running);
                }
                Err(error) => end(running, Event::Failed(error.into()), shared),
            }
        }
        Work::Score(work) => scoring.push_back(Scored { running, work }),
        Work::Taken => {}
    }
}

/// Ends what nobody waits for, and what is too late.
fn drop_over(lanes: &mut [Lane<'_>], scoring: &mut VecDeque<Scored>, shared: &Shared) {
    let now = Instant::now();
    let is_over = |running: &Running| running.part.is_gone() || running.part.ticket.deadline <= now;
    for lane in lanes {
        let over: Vec<usize> = (lane.running.iter())
            .filter(|(_, running)| is_over(running))
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            lane.session.cancel(number);
            if let Some(running) = lane.running.remove(&number) {
                end(running, Event::Failed(ApiError::deadline()), shared);
            }
        }
    }
    for _ in 0..scoring.len() {
        let Some(scored) = scoring.pop_front() else {
            return;
        };
        match is_over(&scored.running) {
            true => end(scored.running, Event::Failed(ApiError::deadline()), shared),
            false => scoring.push_back(scored),
        }
    }
}

/// A step of a session.
fn step(lane: &mut Lane<'_>, shared: &Shared) {
    if lane.running.is_empty() {
        return;
    }
    let (running, mask) = (&mut lane.running, lane.mask_token_id);
    let ended = lane.session.step(&mut |event| {
        let Some(running) = running.get_mut(&event.request) else {
            return ControlFlow::Break(());
        };
        tell(running, event, mask, shared)
    });
    for Ended { request, result } in ended {
        let Some(running) = lane.running.remove(&request) else {
            continue;
        };
        let event = match result {
            Ok(output) => {
                shared.metrics.written(&output);
                Event::Written(Box::new(output))
            }
            Err(error) => Event::Failed(error.into()),
        };
        end(running, event, shared);
    }
}

/// Tells who waits for a sequence of its newest step.
fn tell(
    running: &mut Running,
    event: &StepEvent<'_>,
    mask_token_id: u32,
    shared: &Shared,
) -> ControlFlow<()> {
    let reply = &running.part.reply;
    if event.step == 0 {
        let canvas = crate::moves::before(event, mask_token_id);
        let steps = event.steps;
        reply.send(Event::Begun { canvas, steps });
    }
    if !running.has_settled && !event.settled.is_empty() {
        running.has_settled = true;
        let seconds = running.since.elapsed().as_secs_f64();
        shared.metrics.first_settled.observe(seconds);
    }
    reply.send(Event::Step(Step {
        step: event.step,
        steps: event.steps,
        settled: event.settled.clone(),
        revealed: event.revealed.to_vec(),
        edits: event.edits.to_vec(),
        window: event.window.clone(),
        block: match event.edits.is_empty() {
            true => Vec::new(),
            false => event.canvas[event.window.clone()].to_vec(),
        },
    }));
    match reply.stop.load(Ordering::Relaxed) || running.part.is_gone() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// One call of a likelihood; it comes back if there is more to do.
fn score(models: &[Model], mut scored: Scored, shared: &Shared) -> Option<Scored> {
    let predictor = &models[scored.running.part.model].llada.model;
    let event = match scored.work.step(predictor) {
        Ok(None) => return Some(scored),
        Ok(Some(estimates)) => Event::Scored(estimates, scored.work),
        Err(error) => Event::Failed(error.into()),
    };
    end(scored.running, event, shared);
    None
}

fn end(running: Running, event: Event, shared: &Shared) {
    let seconds = running.since.elapsed().as_secs_f64();
    let Running { part, .. } = running;
    shared.queue().end(&part.ticket.client, part.bytes, seconds);
    part.reply.send(event);
}
