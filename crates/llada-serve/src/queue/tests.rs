//! Tests of who is next.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llada::sample::{Request, SampleConfig};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::engine::{Event, Reply, Work};

type Receiver = UnboundedReceiver<(usize, Event)>;

fn limits() -> Limits {
    Limits {
        max_running: 2,
        max_waiting: 4,
        memory_bytes: 100,
        prefix_bytes: 0,
        timeout: Duration::from_mins(1),
        max_batch_tokens: 1024,
    }
}

fn part(client: &str, priority: i32, bytes: usize) -> (Part, Receiver) {
    let (events, receiver) = unbounded_channel();
    let part = Part {
        model: 0,
        ticket: Ticket {
            client: client.into(),
            priority,
            deadline: Instant::now() + Duration::from_mins(1),
        },
        bytes,
        work: Work::Write(Box::new(Request::infill(vec![0], SampleConfig::default()))),
        reply: Reply {
            index: 0,
            events,
            stop: Arc::new(AtomicBool::new(false)),
        },
    };
    (part, receiver)
}

/// A queue with a part of each of these, and who listens.
fn queue(limits: Limits, parts: &[(&str, i32, usize)]) -> (Queue, Vec<Receiver>) {
    let mut queue = Queue::new(limits);
    let mut receivers = Vec::new();
    for (client, priority, bytes) in parts {
        let (part, receiver) = part(client, *priority, *bytes);
        queue.push(vec![part], false).unwrap();
        receivers.push(receiver);
    }
    (queue, receivers)
}

fn admitted(queue: &mut Queue) -> Vec<String> {
    let parts = std::iter::from_fn(|| queue.admit());
    parts.map(|part| part.ticket.client.to_string()).collect()
}

fn refusal(result: Result<(), ApiError>) -> Value {
    result.unwrap_err().to_json()["error"]["code"].clone()
}

#[test]
fn clients_take_turns_whatever_one_of_them_asks() {
    let (mut queue, _receivers) = queue(
        limits(),
        &[("a", 0, 1), ("a", 0, 1), ("a", 0, 1), ("b", 0, 1)],
    );
    assert_eq!(admitted(&mut queue), ["a", "b"]);
    queue.end(&"a".into(), 1, 1.0);
    assert_eq!(admitted(&mut queue), ["a"]);
    assert_eq!((queue.n_running(), queue.n_waiting()), (2, 1));
}

#[test]
fn a_lower_priority_number_goes_first() {
    let (mut queue, _receivers) = queue(limits(), &[("a", 1, 1), ("b", 0, 1), ("c", -1, 1)]);
    assert_eq!(admitted(&mut queue), ["c", "b"]);
}

#[test]
fn what_runs_never_holds_more_than_the_limit_and_a_large_part_is_not_overtaken() {
    let (mut queue, _receivers) = queue(limits(), &[("a", 0, 60), ("b", 0, 60), ("c", 0, 10)]);
    assert_eq!(admitted(&mut queue), ["a"]);
    queue.end(&"a".into(), 60, 1.0);
    assert_eq!(admitted(&mut queue), ["b", "c"]);
    assert_eq!(queue.bytes(), 70);
}

#[test]
fn a_full_queue_refuses_all_parts_of_a_request() {
    let (mut queue, _receivers) = queue(limits(), &[("a", 0, 1), ("a", 0, 1), ("a", 0, 1)]);
    let (one, _one) = part("b", 0, 1);
    let (two, _two) = part("b", 0, 1);
    assert_eq!(refusal(queue.push(vec![one, two], false)), "queue_full");
    assert_eq!(queue.n_waiting(), 3);
    // One that was taken in before goes on.
    let (one, _one) = part("b", 0, 1);
    let (two, _two) = part("b", 0, 1);
    queue.push(vec![one, two], true).unwrap();
    // What can never run is refused, whatever waits.
    let (large, _large) = part("b", 0, 101);
    assert_eq!(refusal(queue.push(vec![large], true)), "invalid_value");
}

#[test]
fn who_is_gone_or_late_gives_up_its_place() {
    let (mut queue, mut receivers) = queue(limits(), &[("a", 0, 1), ("b", 0, 1)]);
    drop(receivers.remove(0));
    assert_eq!(queue.drop_gone(Instant::now()).len(), 1);
    let later = Instant::now() + Duration::from_mins(2);
    assert_eq!(queue.drop_gone(later).len(), 1);
    assert_eq!(queue.n_waiting(), 0);
    assert!(queue.clients.is_empty(), "{:?}", queue.clients);
}

#[test]
fn a_closed_queue_takes_nothing() {
    let (mut queue, _receivers) = queue(limits(), &[("a", 0, 1)]);
    queue.is_closed = true;
    let (part, _receiver) = part("a", 0, 1);
    assert_eq!(refusal(queue.push(vec![part], false)), "shutting_down");
    assert_eq!(admitted(&mut queue), ["a"]);
}
