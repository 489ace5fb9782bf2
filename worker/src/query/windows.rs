//! The groups of one window, and which of them close. `(start, end]`; a window closes when its end is strictly below the watermark.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drover_crds::query::Window;

use super::partial::{Partial, Shape, Term};

/// The partial aggregates of one group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// The position of its first row, which orders groups of one window.
    pub(crate) first: u64,
    pub(crate) partials: Box<[Partial]>,
}

impl Cell {
    pub(crate) fn new(shapes: &[Shape], first: u64) -> Self {
        Self { first, partials: shapes.iter().map(Partial::new).collect() }
    }

    fn add(&mut self, shapes: &[Shape], terms: &[Term], position: u64) {
        self.first = self.first.min(position);
        for ((partial, shape), term) in self.partials.iter_mut().zip(shapes).zip(terms) {
            partial.add(shape, term);
        }
    }

    pub(crate) fn merge(&mut self, shapes: &[Shape], other: &Self) {
        self.first = self.first.min(other.first);
        for ((partial, shape), theirs) in self.partials.iter_mut().zip(shapes).zip(&other.partials) {
            partial.merge(shape, theirs);
        }
    }
}

type Key = Box<[u8]>;
type Cells = HashMap<Key, Cell>;

/// A group whose window has closed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) end: i64,
    pub(crate) key: Key,
    pub(crate) cell: Cell,
}

/// The open groups of one window.
#[derive(Debug)]
pub(crate) struct Store {
    window: Window,
    /// By the end of a pane, or by the time of the rows.
    panes: BTreeMap<i64, Cells>,
    /// For sliding windows and sessions: domain, key, time.
    lines: HashMap<Key, HashMap<Key, BTreeMap<i64, Cell>>>,
}

impl Store {
    pub(crate) fn new(window: Window) -> Self {
        Self { window, panes: BTreeMap::new(), lines: HashMap::new() }
    }

    fn keeps_lines(&self) -> bool {
        matches!(self.window, Window::Sliding { .. } | Window::Session { .. })
    }

    /// The pane that a time belongs to.
    pub(crate) fn pane(&self, time: i64) -> i64 {
        match self.window {
            Window::Hopping { size, hop, offset } => ceil(time, gcd(size, hop), offset),
            _ => time,
        }
    }

    pub(crate) fn add(
        &mut self,
        shapes: &[Shape],
        domain: &[u8],
        key: &[u8],
        terms: &[Term],
        time: i64,
        position: u64,
    ) {
        let pane = self.pane(time);
        let cell = if self.keeps_lines() {
            if !self.lines.contains_key(domain) {
                self.lines.insert(domain.into(), HashMap::new());
            }
            let line = self.lines.get_mut(domain).expect("inserted above");
            line.entry(key.into()).or_default().entry(pane).or_insert_with(|| Cell::new(shapes, position))
        } else {
            let cells = self.panes.entry(pane).or_default();
            if let Some(cell) = cells.get_mut(key) {
                // The common case, with one look-up.
                cell.add(shapes, terms, position);
                return;
            }
            cells.entry(key.into()).or_insert_with(|| Cell::new(shapes, position))
        };
        cell.add(shapes, terms, position);
    }

    /// Merges a cell that was computed elsewhere.
    pub(crate) fn absorb(&mut self, shapes: &[Shape], domain: &[u8], key: &[u8], pane: i64, cell: &Cell) {
        let own = if self.keeps_lines() {
            self.lines
                .entry(domain.into())
                .or_default()
                .entry(key.into())
                .or_default()
                .entry(pane)
                .or_insert_with(|| Cell::new(shapes, cell.first))
        } else {
            self.panes.entry(pane).or_default().entry(key.into()).or_insert_with(|| Cell::new(shapes, cell.first))
        };
        own.merge(shapes, cell);
    }

    /// Takes everything out: domain, key, pane and cell.
    pub(crate) fn drain(&mut self) -> Vec<(Key, Key, i64, Cell)> {
        let mut out = Vec::new();
        for (pane, cells) in std::mem::take(&mut self.panes) {
            out.extend(cells.into_iter().map(|(key, cell)| (Key::default(), key, pane, cell)));
        }
        for (domain, keys) in std::mem::take(&mut self.lines) {
            for (key, line) in keys {
                out.extend(line.into_iter().map(|(time, cell)| (domain.clone(), key.clone(), time, cell)));
            }
        }
        out.sort_by(|a, b| (&a.0, &a.1, a.2).cmp(&(&b.0, &b.1, b.2)));
        out
    }

    /// Number of open cells.
    pub(crate) fn len(&self) -> usize {
        self.panes.values().map(HashMap::len).sum::<usize>()
            + self.lines.values().flat_map(HashMap::values).map(BTreeMap::len).sum::<usize>()
    }

    /// The groups whose windows end from `from` on and strictly below `to`.
    pub(crate) fn close(&mut self, shapes: &[Shape], from: i64, to: i64) -> Vec<Closed> {
        match self.window {
            Window::Hopping { size, hop, offset } => self.close_hopping(shapes, size, hop, offset, from, to),
            Window::Snapshot => self.close_snapshots(to),
            Window::Sliding { size } => self.close_sliding(shapes, size, from, to),
            Window::Session { timeout, max, .. } => self.close_sessions(shapes, timeout, max, to),
        }
    }

    fn close_snapshots(&mut self, to: i64) -> Vec<Closed> {
        let open = self.panes.split_off(&to);
        let closed = std::mem::replace(&mut self.panes, open);
        closed
            .into_iter()
            .flat_map(|(end, cells)| cells.into_iter().map(move |(key, cell)| Closed { end, key, cell }))
            .collect()
    }

    fn close_hopping(&mut self, shapes: &[Shape], size: i64, hop: i64, offset: i64, from: i64, to: i64) -> Vec<Closed> {
        let mut out = Vec::new();
        let mut next = from;
        while let Some((&pane, _)) = self.panes.first_key_value() {
            let end = ceil(pane.max(next), hop, offset);
            if end >= to {
                break;
            }
            if size == hop {
                let cells = self.panes.remove(&pane).unwrap_or_default();
                out.extend(cells.into_iter().map(|(key, cell)| Closed { end, key, cell }));
            } else {
                let mut merged: Cells = HashMap::new();
                for (_, cells) in self.panes.range(end - size + 1..=end) {
                    for (key, cell) in cells {
                        match merged.get_mut(key) {
                            Some(own) => own.merge(shapes, cell),
                            None => drop(merged.insert(key.clone(), cell.clone())),
                        }
                    }
                }
                out.extend(merged.into_iter().map(|(key, cell)| Closed { end, key, cell }));
                // The next window starts one hop later; panes up to there have had their last.
                self.panes = self.panes.split_off(&(end + hop - size + 1));
            }
            next = end + 1;
        }
        out
    }

    fn close_sliding(&mut self, shapes: &[Shape], size: i64, from: i64, to: i64) -> Vec<Closed> {
        let mut out = Vec::new();
        for keys in self.lines.values_mut() {
            for (key, line) in keys.iter_mut() {
                let changes: BTreeSet<i64> =
                    line.keys().flat_map(|t| [*t, t + size]).filter(|t| (from..to).contains(t)).collect();
                for end in changes {
                    let mut content = line.range(end - size + 1..=end).map(|(_, cell)| cell);
                    let Some(first) = content.next() else { continue };
                    let mut cell = first.clone();
                    content.for_each(|c| cell.merge(shapes, c));
                    out.push(Closed { end, key: key.clone(), cell });
                }
                // A row leaves at t + size; below the watermark it has left.
                *line = line.split_off(&to.saturating_sub(size));
            }
            keys.retain(|_, line| !line.is_empty());
        }
        self.lines.retain(|_, keys| !keys.is_empty());
        out
    }

    fn close_sessions(&mut self, shapes: &[Shape], timeout: i64, max: i64, to: i64) -> Vec<Closed> {
        let mut out = Vec::new();
        for keys in self.lines.values_mut() {
            let times: BTreeSet<i64> = keys.values().flat_map(|line| line.keys().copied()).collect();
            for (open, last, end) in sessions(&times, timeout, max) {
                if end >= to {
                    break;
                }
                for (key, line) in keys.iter_mut() {
                    let mut rest = line.split_off(&open);
                    let mut later = rest.split_off(&(last + 1));
                    line.append(&mut later);
                    let mut cells = rest.into_values();
                    let Some(mut cell) = cells.next() else { continue };
                    cells.for_each(|c| cell.merge(shapes, &c));
                    out.push(Closed { end, key: key.clone(), cell });
                }
            }
            keys.retain(|_, line| !line.is_empty());
        }
        self.lines.retain(|_, keys| !keys.is_empty());
        out
    }
}

/// The sessions of sorted times: first row, last row, end.
fn sessions(times: &BTreeSet<i64>, timeout: i64, max: i64) -> Vec<(i64, i64, i64)> {
    let mut out = Vec::new();
    let mut times = times.iter().copied().peekable();
    while let Some(open) = times.next() {
        // The first multiple at which the session has been open for the longest duration.
        let checkpoint = ceil(open + max, max, 0);
        let mut last = open;
        while let Some(next) = times.next_if(|t| *t - last <= timeout && *t <= checkpoint) {
            last = next;
        }
        out.push((open, last, (last + timeout).min(checkpoint)));
    }
    out
}

/// The first k·step + offset at or after a time.
pub(crate) fn ceil(time: i64, step: i64, offset: i64) -> i64 {
    let rest = (time - offset).rem_euclid(step);
    if rest == 0 { time } else { time - rest + step }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
