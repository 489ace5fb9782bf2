//! File mode: a WindowQuery over a file of events, with the engine that the workers use.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
};

use drover_crds::query::Plan;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{
    clock,
    decode::{Decoder, Event},
    engine::{Engine, OutputRow},
    error::DataError,
    ordering::{Counters, Ordering, Reason, Tolerance, Verdict},
    value::Value,
};

/// Events between two closings. Results do not depend on it.
const BATCH: u64 = 4_096;
/// Lines between two reports of progress.
const REPORT: u64 = 65_536;

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The field that holds an event's arrival.
    pub arrival_field: Option<String>,
    /// Add `_window_end` to each row.
    pub window_end: bool,
}

/// What a run has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Events by their order.
    pub counters: Counters,
    /// Events and rows in error.
    pub errors: u64,
    /// Rows printed.
    pub rows: u64,
}

/// Runs a plan over lines of JSON. Rows go to `out`, errors to `notes`, and `progress` is called with the line now and then.
///
/// # Errors
/// If reading or writing fails.
pub fn run(
    plan: &Plan,
    tolerance: Tolerance,
    options: &Options,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    notes: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<Report> {
    let mut runner = Runner::new(plan, tolerance, options, out, notes);
    let mut line = Vec::new();
    let mut number = 0_u64;
    while {
        line.clear();
        input.read_until(b'\n', &mut line)? > 0
    } {
        number += 1;
        if !line.trim_ascii().is_empty() {
            runner.line(&line, number)?;
        }
        if number.is_multiple_of(REPORT) {
            progress(number);
        }
    }
    runner.finish()
}

struct Runner<'a> {
    plan: &'a Plan,
    engine: Engine,
    decoder: Decoder,
    tolerance: Tolerance,
    options: &'a Options,
    /// Per key of TIMESTAMP BY … OVER: its order and its running maximum.
    substreams: HashMap<Vec<u8>, (Ordering, i64)>,
    several: bool,
    windows: bool,
    position: u64,
    next_close: u64,
    rows: Vec<OutputRow>,
    errors: Vec<(i64, DataError)>,
    report: Report,
    out: &'a mut dyn Write,
    notes: &'a mut dyn Write,
}

impl<'a> Runner<'a> {
    fn new(
        plan: &'a Plan,
        tolerance: Tolerance,
        options: &'a Options,
        out: &'a mut dyn Write,
        notes: &'a mut dyn Write,
    ) -> Self {
        Self {
            plan,
            engine: Engine::new(plan),
            decoder: Decoder::new(plan, options.arrival_field.as_deref()),
            tolerance,
            options,
            substreams: HashMap::new(),
            several: plan.outputs().len() > 1,
            windows: plan.has_windows(),
            position: 0,
            next_close: BATCH,
            rows: Vec::new(),
            errors: Vec::new(),
            report: Report::default(),
            out,
            notes,
        }
    }

    fn line(&mut self, line: &[u8], number: u64) -> std::io::Result<()> {
        let events = match self.decoder.message(line) {
            Ok(events) => events,
            Err(error) => return self.note(number, &error.to_string()),
        };
        for event in events {
            self.position += 1;
            match self.event(&event) {
                Ok(None) => {}
                Ok(Some(note)) => writeln!(self.notes, "line {number}: {note}")?,
                Err(error) => self.note(number, &error.to_string())?,
            }
        }
        if self.position >= self.next_close || !self.windows {
            self.next_close = self.position + BATCH;
            self.close()?;
        }
        Ok(())
    }

    fn note(&mut self, number: u64, message: &str) -> std::io::Result<()> {
        self.report.errors += 1;
        writeln!(self.notes, "line {number}: {message}")
    }

    /// Orders an event and takes it; a note says why it does not count.
    fn event(&mut self, event: &Event) -> Result<Option<String>, DataError> {
        let time = self.engine.time_of(event)?;
        let arrival = self.arrival(event)?;
        let substream = self.engine.substream_of(event)?;
        let tolerance = self.tolerance;
        let (ordering, newest) =
            self.substreams.entry(substream).or_insert_with(|| (Ordering::new(tolerance, i64::MIN), i64::MIN));
        let named = self.options.arrival_field.is_some();
        if named && time.or(arrival).is_none() {
            return Err(DataError::Argument("the event has neither a time nor an arrival".to_owned()));
        }
        // Without TIMESTAMP BY and without a field all events arrive at one instant.
        let time = time.or(arrival).unwrap_or(0);
        // An event without the field that is named has no late check.
        let verdict = ordering.judge(time, if named { arrival } else { Some(time.max(*newest)) });
        let note = match verdict {
            Verdict::OnTime(at) | Verdict::Adjusted(at) => {
                self.engine.push(event, at, self.position, &mut self.rows)?;
                None
            }
            Verdict::Dropped(reason) => Some(format!("dropped, {}", name(reason))),
            Verdict::DeadLetter(reason) => Some(format!("dead letter, {}", name(reason))),
        };
        *newest = time.max(*newest);
        ordering.take(verdict);
        Ok(note)
    }

    fn arrival(&self, event: &Event) -> Result<Option<i64>, DataError> {
        match self.decoder.extra(event) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::BigInt(ms)) => {
                ms.checked_mul(10_000).and_then(clock::valid).map(Some).ok_or_else(|| DataError::Date(ms.to_string()))
            }
            Some(Value::Text(text)) => {
                clock::parse(text).map(Some).ok_or_else(|| DataError::Date(format!("\"{text}\"")))
            }
            Some(_) => {
                Err(DataError::Argument("the field of the arrival is neither milliseconds nor a date".to_owned()))
            }
        }
    }

    /// Closes what the watermark allows and prints it. With OVER each key has its own time, and all of it closes at the end.
    fn close(&mut self) -> std::io::Result<()> {
        if !self.windows {
            return self.print(i64::MAX);
        }
        if self.plan.over.is_empty()
            && let Some(watermark) = self.substreams.values().map(|(o, _)| o.watermark()).min()
        {
            self.engine.advance(watermark, &mut self.rows, &mut self.errors);
            return self.print(watermark);
        }
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<Report> {
        self.engine.finish(&mut self.rows, &mut self.errors);
        self.print(i64::MAX)?;
        for (ordering, _) in self.substreams.values() {
            let c = ordering.counters();
            self.report.counters.on_time += c.on_time;
            self.report.counters.adjusted += c.adjusted;
            self.report.counters.dropped += c.dropped;
            self.report.counters.dead_lettered += c.dead_lettered;
        }
        self.out.flush()?;
        Ok(self.report)
    }

    /// Prints the rows below a watermark in the order of their windows; without windows all rows, as they came.
    fn print(&mut self, watermark: i64) -> std::io::Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        if self.windows {
            rows.sort_by_key(|r| r.time);
            let at = rows.partition_point(|r| r.time < watermark || watermark == i64::MAX);
            self.rows = rows.split_off(at);
        }
        for row in &rows {
            let line = Line { row, output: self.several, window_end: self.options.window_end };
            serde_json::to_writer(&mut *self.out, &line).map_err(std::io::Error::from)?;
            self.out.write_all(b"\n")?;
        }
        self.report.rows += rows.len() as u64;
        for (end, error) in self.errors.drain(..) {
            self.report.errors += 1;
            writeln!(self.notes, "window that ends {}: {error}", clock::format(end))?;
        }
        Ok(())
    }
}

fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::Early => "early: its time is more than 5 minutes after its arrival",
        Reason::Late => "late",
        Reason::OutOfOrder => "out of order",
    }
}

/// A row with what file mode adds.
struct Line<'a> {
    row: &'a OutputRow,
    output: bool,
    window_end: bool,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Value::Record(fields) = &self.row.row {
            for (name, value) in fields.iter() {
                map.serialize_entry(&**name, value)?;
            }
        }
        if self.output {
            map.serialize_entry("_output", &*self.row.output)?;
        }
        if self.window_end {
            map.serialize_entry("_window_end", &clock::format(self.row.time))?;
        }
        map.end()
    }
}
