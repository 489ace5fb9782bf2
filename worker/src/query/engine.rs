//! The engine: events and times in, rows out. It has no clock and does no I/O.
//!
//! An event is evaluated through all steps before anything is changed, so that an event in error leaves no trace.

use std::sync::Arc;

use drover_crds::query::{Input, Plan};

use super::{
    decode::Event,
    error::DataError,
    key,
    node::{Node, Row},
    partial::Partial,
    scalars,
    step::{Compiled, Contribution, Kind, project},
    value::Value,
    windows::{Cell, Closed, Store},
};

/// A row for an output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRow {
    /// The output.
    pub output: Arc<str>,
    /// The end of its window, or the time of its event.
    pub time: i64,
    /// The row.
    pub row: Value,
    /// The step that made it.
    pub step: usize,
    /// The window's place among the step's windows and the group's key, where the row is that of a group or made of it.
    pub group: Option<(usize, Arc<[u8]>)>,
}

/// A group whose row could not be computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// The end of its window.
    pub end: i64,
    /// The window's place in the step's set.
    pub window: usize,
    /// The group's key, in the canonical encoding.
    pub key: Arc<[u8]>,
    /// Why.
    pub error: DataError,
}

/// A partial aggregate on its way to or from a store. Rows with equal step, window, pane, domain and key merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPartial {
    /// The step's place in the plan.
    pub step: usize,
    /// The window's place in the step's set.
    pub window: usize,
    /// The pane's end, or the time of the rows.
    pub pane: i64,
    /// The partition of a session, in the canonical encoding.
    pub domain: Vec<u8>,
    /// The group's key, in the canonical encoding.
    pub key: Vec<u8>,
    /// The aggregates, versioned.
    pub partial: Vec<u8>,
}

/// Version of the stored form of partial aggregates.
const STORED_VERSION: u8 = 1;

/// Runs one plan.
#[derive(Debug)]
pub struct Engine {
    steps: Vec<Compiled>,
    /// By step and window.
    stores: Vec<Vec<Store>>,
    timestamp_by: Option<Node>,
    over: Vec<Node>,
    closed: i64,
    pending: Vec<(usize, Contribution)>,
    used: usize,
    ready: Vec<OutputRow>,
}

impl Engine {
    /// For a plan, with no window closed yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self::resume(plan, i64::MIN)
    }

    /// For a plan whose windows that end below `closed` have been emitted.
    #[must_use]
    pub fn resume(plan: &Plan, closed: i64) -> Self {
        let steps: Vec<Compiled> = plan.steps.iter().map(Compiled::new).collect();
        let stores = steps.iter().map(|step| match &step.kind {
            Kind::Project(_) => Vec::new(),
            Kind::Group(group) => group.windows.iter().map(|w| Store::new(w.window.clone())).collect(),
        });
        let stores = stores.collect();
        let timestamp_by = plan.timestamp_by.as_ref().map(Node::compile);
        let over = plan.over.iter().map(Node::compile).collect();
        Self { steps, stores, timestamp_by, over, closed, pending: Vec::new(), used: 0, ready: Vec::new() }
    }

    /// The event's own time by TIMESTAMP BY; `None` where the query has none and the arrival counts.
    ///
    /// # Errors
    /// If TIMESTAMP BY fails or is NULL.
    pub fn time_of(&self, event: &Event) -> Result<Option<i64>, DataError> {
        let Some(node) = &self.timestamp_by else { return Ok(None) };
        match node.eval(&source_row(event, 0))? {
            Value::Null => Err(DataError::NoTime),
            value => scalars::datetime(&value, "TIMESTAMP BY").map(Some),
        }
    }

    /// The key of `TIMESTAMP BY … OVER`, in the canonical encoding; empty where the query has none.
    ///
    /// # Errors
    /// If its evaluation fails.
    pub fn substream_of(&self, event: &Event) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        for node in &self.over {
            key::encode(&node.eval(&source_row(event, 0))?, &mut bytes);
        }
        Ok(bytes)
    }

    /// Takes an event at its system time. `position` is its place in its partition. Rows of steps without windows go to `out`.
    ///
    /// # Errors
    /// If anything in its evaluation fails; then nothing has changed.
    pub fn push(&mut self, event: &Event, time: i64, position: u64, out: &mut Vec<OutputRow>) -> Result<(), DataError> {
        self.used = 0;
        self.ready.clear();
        let row = source_row(event, time);
        let mut sink = Sink { pending: &mut self.pending, used: &mut self.used, ready: &mut self.ready };
        run_all(&self.steps, &row, position, &mut sink)?;
        self.apply();
        out.append(&mut self.ready);
        Ok(())
    }

    /// Adds what the evaluation of a row has left.
    fn apply(&mut self) {
        for (step, contribution) in &self.pending[..self.used] {
            let Kind::Group(group) = &self.steps[*step].kind else { continue };
            let c = contribution;
            for (store, domain) in self.stores[*step].iter_mut().zip(&c.domains) {
                store.add(&group.shapes, domain, &c.key, &c.terms, c.time, c.position);
            }
        }
        self.used = 0;
    }

    /// Closes the windows that end strictly below the watermark. A row that fails is in `errors`, with the end of its window.
    pub fn advance(&mut self, watermark: i64, out: &mut Vec<OutputRow>, errors: &mut Vec<(i64, DataError)>) {
        if watermark <= self.closed {
            return;
        }
        let from = std::mem::replace(&mut self.closed, watermark);
        let mut failed = Vec::new();
        for step in 0..self.steps.len() {
            self.close(step, from, watermark, out, &mut failed);
        }
        errors.extend(failed.into_iter().map(|f| (f.end, f.error)));
    }

    /// Closes the windows of one step that end from `from` on and strictly below `to`. Its rows go to outputs and to later steps.
    pub fn close(&mut self, step: usize, from: i64, to: i64, out: &mut Vec<OutputRow>, failed: &mut Vec<Failed>) {
        let Kind::Group(group) = &self.steps[step].kind else { return };
        let mut closed: Vec<(usize, Closed)> = Vec::new();
        for (window, store) in self.stores[step].iter_mut().enumerate() {
            closed.extend(store.close(&group.shapes, from, to).into_iter().map(|c| (window, c)));
        }
        closed.sort_by(|(wa, a), (wb, b)| (a.end, wa, a.cell.first, &a.key).cmp(&(b.end, wb, b.cell.first, &b.key)));
        for (window, Closed { end, key, cell }) in closed {
            let key: Arc<[u8]> = key.into();
            if let Err(error) = self.emit(step, window, end, &key, &cell, out) {
                failed.push(Failed { end, window, key, error });
            }
        }
    }

    /// Gives the row of a closed group, if HAVING keeps it, to the step's output and to the steps that read it.
    fn emit(
        &mut self,
        step: usize,
        window: usize,
        end: i64,
        key: &Arc<[u8]>,
        cell: &Cell,
        out: &mut Vec<OutputRow>,
    ) -> Result<(), DataError> {
        let Kind::Group(group) = &self.steps[step].kind else { return Ok(()) };
        let Some(row) = group.emit(&group.windows[window], key, &cell.partials, end)? else { return Ok(()) };
        self.forward(step, &row, end, cell.first)?;
        for made in &mut self.ready {
            made.group = Some((window, key.clone()));
        }
        out.append(&mut self.ready);
        if let Some(output) = &self.steps[step].output {
            out.push(OutputRow { output: output.clone(), time: end, row, step, group: Some((window, key.clone())) });
        }
        Ok(())
    }

    /// Gives a row of a closed window to the steps that read it. Its position is that of the group's first row, so that it does not
    /// depend on what closes together.
    fn forward(&mut self, step: usize, row: &Value, end: i64, position: u64) -> Result<(), DataError> {
        self.used = 0;
        self.ready.clear();
        let row = Row { record: row, ..empty_row(end) };
        let mut sink = Sink { pending: &mut self.pending, used: &mut self.used, ready: &mut self.ready };
        for index in step + 1..self.steps.len() {
            if self.steps[index].input == Input::Step(step) {
                run(&self.steps, index, &row, position, &mut sink)?;
            }
        }
        self.apply();
        Ok(())
    }

    /// Closes every window: nothing is to come.
    pub fn finish(&mut self, out: &mut Vec<OutputRow>, errors: &mut Vec<(i64, DataError)>) {
        self.advance(i64::MAX, out, errors);
    }

    /// Number of open partial aggregates.
    #[must_use]
    pub fn open(&self) -> usize {
        self.stores.iter().flatten().map(Store::len).sum()
    }

    /// Takes all partial aggregates out, in one order, for a store.
    pub fn drain(&mut self) -> Vec<StoredPartial> {
        let mut out = Vec::new();
        for (step, stores) in self.stores.iter_mut().enumerate() {
            for (window, store) in stores.iter_mut().enumerate() {
                for (domain, key, pane, cell) in store.drain() {
                    out.push(StoredPartial {
                        step,
                        window,
                        pane,
                        domain: domain.into(),
                        key: key.into(),
                        partial: stored(&cell),
                    });
                }
            }
        }
        out
    }

    /// Merges a stored partial aggregate; `false` if it does not belong to this plan or cannot be read.
    #[must_use]
    pub fn absorb(&mut self, stored: &StoredPartial) -> bool {
        let Some(Kind::Group(group)) = self.steps.get(stored.step).map(|s| &s.kind) else { return false };
        let Some(store) = self.stores[stored.step].get_mut(stored.window) else { return false };
        let mut reader = key::Reader::new(&stored.partial);
        let cell = (|| {
            (reader.byte()? == STORED_VERSION).then_some(())?;
            let first = reader.u64()?;
            let partials = group.shapes.iter().map(|s| Partial::decode(s, &mut reader)).collect::<Option<_>>()?;
            reader.is_empty().then_some(Cell { first, partials })
        })();
        match cell {
            Some(cell) => {
                store.absorb(&group.shapes, &stored.domain, &stored.key, stored.pane, &cell);
                true
            }
            None => false,
        }
    }
}

fn stored(cell: &Cell) -> Vec<u8> {
    let mut out = vec![STORED_VERSION];
    out.extend_from_slice(&cell.first.to_le_bytes());
    cell.partials.iter().for_each(|p| p.encode(&mut out));
    out
}

fn empty_row<'a>(time: i64) -> Row<'a> {
    Row { slots: &[], record: &Value::Null, applied: &[], time, keys: &[], aggregates: &[], window: None }
}

pub(crate) fn source_row(event: &Event, time: i64) -> Row<'_> {
    Row { slots: &event.slots, record: &event.whole, ..empty_row(time) }
}

/// Where the evaluation of one row leaves what is to be done once all of it has succeeded.
struct Sink<'a> {
    pending: &'a mut Vec<(usize, Contribution)>,
    used: &'a mut usize,
    ready: &'a mut Vec<OutputRow>,
}

impl Sink<'_> {
    /// A contribution to fill; its buffers are used again.
    fn next(&mut self, step: usize) -> &mut Contribution {
        if self.pending.len() == *self.used {
            let fresh = Contribution { time: 0, position: 0, domains: Vec::new(), key: Vec::new(), terms: Vec::new() };
            self.pending.push((step, fresh));
        }
        let entry = &mut self.pending[*self.used];
        *self.used += 1;
        entry.0 = step;
        &mut entry.1
    }
}

/// The rows that steps without windows make of an event.
pub(crate) fn rows(steps: &[Compiled], event: &Event, time: i64, ready: &mut Vec<OutputRow>) -> Result<(), DataError> {
    let (mut pending, mut used) = (Vec::new(), 0);
    run_all(steps, &source_row(event, time), 0, &mut Sink { pending: &mut pending, used: &mut used, ready })
}

/// Runs every step that reads the input.
fn run_all(steps: &[Compiled], row: &Row<'_>, position: u64, sink: &mut Sink<'_>) -> Result<(), DataError> {
    for index in 0..steps.len() {
        if steps[index].input == Input::Source {
            run(steps, index, row, position, sink)?;
        }
    }
    Ok(())
}

fn run(steps: &[Compiled], index: usize, row: &Row<'_>, position: u64, sink: &mut Sink<'_>) -> Result<(), DataError> {
    let step = &steps[index];
    step.rows(row, &mut |row| match &step.kind {
        Kind::Group(group) => group.contribution(row, position, sink.next(index)),
        Kind::Project(columns) => {
            let record = project(columns, row)?;
            let inner = Row { record: &record, ..empty_row(row.time) };
            for next in index + 1..steps.len() {
                if steps[next].input == Input::Step(index) {
                    run(steps, next, &inner, position, sink)?;
                }
            }
            if let Some(output) = &step.output {
                sink.ready.push(OutputRow {
                    output: output.clone(),
                    time: row.time,
                    row: record,
                    step: index,
                    group: None,
                });
            }
            Ok(())
        }
    })
}
