//! How far the messages of a batch are. Sends nothing.

use lapin::message::Delivery;

use super::super::{
    envelope::{self, Sender},
    meter::Outcome,
    outage::Likeness,
    prepare::Item,
    reject::Rejection,
    spans::Spans,
    suspect::Transfer,
};

/// A message that the sink refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its place in the batch.
    pub(super) message: usize,
    pub(super) why: Rejection,
    pub(super) likeness: Likeness,
    /// It is to be tried again, after so many seconds at least.
    pub(super) wait: Option<u32>,
}

impl Refusal {
    pub(super) fn is_of(&self, item: &Item<'_>) -> bool {
        self.message == item.message
    }
}

/// What refusals of a batch mean.
pub(super) enum Judgement {
    /// The messages are to blame.
    Final,
    /// They were refused before an outage's end, and are not to blame before they are refused once more.
    Stale,
    /// The sink is to blame.
    Outage { message: String },
}

/// How far the messages of a batch are.
pub(super) struct Course {
    /// Written, or found to be at fault.
    pub(super) ended: Vec<bool>,
    /// To be acknowledged.
    pub(super) settled: Vec<bool>,
    /// Possibly written, though nothing said so.
    doubted: Vec<bool>,
    pub(super) dead: Vec<(usize, Rejection)>,
    pub(super) moves: Vec<(usize, Transfer)>,
    pub(super) spans: Spans,
}

impl Course {
    pub(super) fn new(messages: usize, spans: Spans) -> Self {
        let none = vec![false; messages];
        Self { ended: none.clone(), settled: none.clone(), doubted: none, dead: Vec::new(), moves: Vec::new(), spans }
    }

    /// A row of an item's id may be its own from now on.
    pub(super) fn doubt(&mut self, items: &mut [Item<'_>]) {
        for item in items.iter_mut().filter(|item| !self.ended[item.message]) {
            item.first = false;
            self.doubted[item.message] = true;
        }
    }

    /// What did not come to an end. What is possibly written counts as delivered before.
    pub(super) fn left(mut self, batch: Vec<Delivery>) -> Vec<Delivery> {
        for (message, _) in self.settled.iter().enumerate().filter(|(_, settled)| !**settled) {
            self.spans.end(message, Outcome::Returned);
        }
        let states = self.settled.into_iter().zip(self.doubted);
        let open = batch.into_iter().zip(states).filter(|(_, (settled, _))| !settled);
        open.map(|(delivery, (_, doubted))| Delivery { redelivered: delivery.redelivered || doubted, ..delivery })
            .collect()
    }

    pub(super) fn reject(&mut self, message: usize, rejection: Rejection) {
        self.ended[message] = true;
        self.dead.push((message, rejection));
    }

    pub(super) fn transfer(&mut self, message: usize, transfer: Transfer) {
        self.ended[message] = true;
        self.moves.push((message, transfer));
    }

    pub(super) fn kept<T>(&mut self, message: usize, result: Result<T, Rejection>) -> Option<T> {
        result.map_err(|rejection| self.reject(message, rejection)).ok()
    }
}

/// What the sink said to each message that it saw, in their order. What was sent to wait and failed again is told once.
pub(super) fn ends(
    sender: &Sender,
    items: &[Item<'_>],
    course: &Course,
    refusals: &[Refusal],
) -> Vec<Option<Likeness>> {
    let seen = |item: &Item<'_>| match refusals.iter().find(|refusal| refusal.is_of(item)) {
        None => course.settled[item.message].then_some(None),
        Some(_) if envelope::attempts(sender, item.delivery) > 0 => None,
        Some(refusal) => Some(Some(refusal.likeness.clone())),
    };
    items.iter().filter_map(seen).collect()
}
