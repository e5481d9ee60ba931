//! The parts of one request: checked, taken in together, and heard of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use llada::diffusion::Scoring;
use llada::sample::{Request, Session};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::app::Context;
use crate::engine::{Event, Part, Reply, Work};
use crate::error::{ApiError, Result};
use crate::queue::{Client, Order};

/// Parts that are not taken in yet.
#[derive(Debug)]
pub(crate) struct Parts {
    app: Context,
    model: usize,
    client: Client,
    priority: i32,
    deadline: Instant,
    parts: Vec<Part>,
    sender: UnboundedSender<(usize, Event)>,
    receiver: UnboundedReceiver<(usize, Event)>,
}

impl Parts {
    pub(crate) fn new(app: &Context, model: usize, client: &Client, order: Order) -> Result<Self> {
        let (sender, receiver) = unbounded_channel();
        Ok(Self {
            app: Arc::clone(app),
            model,
            client: Arc::clone(client),
            priority: order.priority,
            deadline: order.deadline(&app.config.limits)?,
            parts: Vec::new(),
            sender,
            receiver,
        })
    }

    /// Adds a sequence to write.
    pub(crate) fn write(&mut self, request: Request) -> Result<()> {
        let model = &self.app.models[self.model];
        // What the engine's session would refuse is refused here, with the field's name.
        Session::new(&model.llada.model).submit(request.clone())?;
        let bytes = model.request_bytes(&request);
        self.push(Work::Write(request), bytes);
        Ok(())
    }

    /// Adds texts to score, in calls of `call_tokens` tokens at most, of `n_logits` of which the
    /// host sees logits.
    pub(crate) fn score(&mut self, scoring: Scoring, call_tokens: usize, n_logits: usize) {
        let bytes = self.app.models[self.model].scoring_bytes(call_tokens, n_logits);
        self.push(Work::Score(Box::new(scoring)), bytes);
    }

    fn push(&mut self, work: Work, bytes: usize) {
        let reply = Reply {
            index: self.parts.len(),
            events: self.sender.clone(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        self.parts.push(Part {
            model: self.model,
            client: Arc::clone(&self.client),
            priority: self.priority,
            deadline: self.deadline,
            bytes,
            work,
            reply,
        });
    }

    /// Has them taken in, all or none. `is_further`: for a request that was taken in before.
    pub(crate) fn submit(self, is_further: bool) -> Result<Events> {
        let stops = self.parts.iter().map(|part| Arc::clone(&part.reply.stop));
        let stops = stops.collect();
        self.app.engine.submit(self.parts, is_further)?;
        Ok(Events {
            receiver: self.receiver,
            stops,
        })
    }
}

/// What is heard of the parts of a request. Dropping it takes out those that have not ended.
#[derive(Debug)]
pub(crate) struct Events {
    receiver: UnboundedReceiver<(usize, Event)>,
    stops: Vec<Arc<AtomicBool>>,
}

impl Events {
    /// The next event of any part; an error of one is one of the request.
    pub(crate) async fn next(&mut self) -> Result<(usize, Event)> {
        match self.receiver.recv().await {
            Some((_, Event::Failed(error))) => Err(error),
            Some(event) => Ok(event),
            None => Err(ApiError::internal(
                "the engine has stopped; see the server's log",
            )),
        }
    }

    /// Ends a part after its next step.
    pub(crate) fn stop(&self, index: usize) {
        self.stops[index].store(true, Ordering::Relaxed);
    }
}
