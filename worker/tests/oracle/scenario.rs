//! Random scenarios: a query, events, tolerances, cuts and partitions.

use drover_worker::query::Policy;
use proptest::prelude::*;

/// 2026-01-01T00:00:00Z in ticks.
const NOW: i64 = 17_672_256_000_000_000;

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Hopping(i64, i64, i64),
    Sliding(i64),
    Session(i64, i64, bool),
    Snapshot,
}

impl Kind {
    fn sql(&self, unit: Unit) -> String {
        let u = unit.name();
        match self {
            Self::Hopping(size, hop, 0) if size == hop => format!("TUMBLINGWINDOW({u}, {size})"),
            Self::Hopping(size, hop, offset) => {
                format!("HOPPINGWINDOW(Duration({u}, {size}), Hop({u}, {hop}), Offset({u}, {offset}))")
            }
            Self::Sliding(size) => format!("SLIDINGWINDOW({u}, {size})"),
            Self::Session(timeout, max, true) => {
                format!("SESSIONWINDOW({u}, {timeout}, {max}) OVER (PARTITION BY k)")
            }
            Self::Session(timeout, max, false) => format!("SESSIONWINDOW({u}, {timeout}, {max})"),
            Self::Snapshot => "System.Timestamp()".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    Millisecond,
    Second,
    Minute,
}

impl Unit {
    pub(crate) fn ticks(self) -> i64 {
        match self {
            Self::Millisecond => 10_000,
            Self::Second => 10_000_000,
            Self::Minute => 600_000_000,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Millisecond => "millisecond",
            Self::Second => "second",
            Self::Minute => "minute",
        }
    }
}

/// An event; times and delays in the scenario's unit.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) time: i64,
    pub(crate) key: u8,
    pub(crate) value: Option<f64>,
    pub(crate) partition: usize,
    pub(crate) delay: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// One, or a set of windows that have ids.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) unit: Unit,
    /// Ticks of the time 0 of the scenario: a multiple of every window's alignment, or not.
    pub(crate) origin: i64,
    pub(crate) policy: Policy,
    pub(crate) late: i64,
    pub(crate) disorder: i64,
    pub(crate) partitions: usize,
    pub(crate) cut: usize,
    /// HAVING COUNT(*) ≥ this.
    pub(crate) least: i64,
    /// The size of the tumbling window of the step after.
    pub(crate) then: i64,
    pub(crate) events: Vec<Event>,
}

impl Scenario {
    pub(crate) fn ticks(&self, time: i64) -> i64 {
        self.origin + time * self.unit.ticks()
    }

    /// Time 0 of the scenario in units since 1970, which windows are aligned to.
    pub(crate) fn shift(&self) -> i64 {
        self.origin / self.unit.ticks()
    }

    pub(crate) fn query(&self) -> String {
        let window = match self.kinds.as_slice() {
            [kind] => kind.sql(self.unit),
            kinds => {
                let members: Vec<String> = kinds
                    .iter()
                    .enumerate()
                    .map(|(id, kind)| format!("Window('{id}', {})", kind.sql(self.unit)))
                    .collect();
                format!("Windows({})", members.join(", "))
            }
        };
        format!(
            "WITH s AS (SELECT System.Window().Id AS id, k, COUNT(*) AS n, COUNT(v) AS c, SUM(v) AS s, AVG(v) AS a, MIN(v) AS lo, \
             MAX(v) AS hi, COUNT(DISTINCT v) AS d, VAR(v) AS var, VARP(v) AS varp, STDEV(v) AS sd, STDEVP(v) AS sdp, \
             PERCENTILE_CONT(0.3) OVER (ORDER BY v) AS pc, PERCENTILE_DISC(0.3) OVER (ORDER BY v) AS pd, \
             PERCENTILE_DISC(0.3) OVER (ORDER BY v DESC) AS pr, TOPONE(v) OVER (ORDER BY v DESC) AS top, \
             COLLECTTOP(3, v) OVER (ORDER BY v) AS ct, COLLECT(v) AS col \
             FROM input TIMESTAMP BY t GROUP BY k, {window} HAVING COUNT(*) >= {}) \
             SELECT * INTO rows FROM s \
             SELECT SUM(n) AS n INTO then FROM s GROUP BY TUMBLINGWINDOW({}, {})",
            self.least,
            self.unit.name(),
            self.then
        )
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => (1_i64..20, 1_i64..20, -5_i64..5).prop_map(|(a, b, o)| Kind::Hopping(a.max(b), a.min(b), o)),
        1 => (1_i64..20).prop_map(|a| Kind::Hopping(a, a, 0)),
        2 => (1_i64..15).prop_map(Kind::Sliding),
        2 => (1_i64..8, 0_i64..20, any::<bool>()).prop_map(|(t, m, by)| Kind::Session(t, t + m, by)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    // Eighths are exact in decimal and in binary; the others make a plain sum depend on its order.
    let value = prop_oneof![
        1 => Just(None),
        1 => Just(Some(0.1)),
        1 => Just(Some(1e16)),
        1 => Just(Some(-1e16)),
        3 => (-8_000_i32..8_000).prop_map(|v| Some(f64::from(v) / 8.0)),
    ];
    let delay = prop_oneof![12 => 0_i64..8, 1 => Just(-4), 1 => Just(-301)];
    (0_i64..60, 0_u8..3, value, 0_usize..3, delay).prop_map(|(time, key, value, partition, delay)| Event {
        time,
        key,
        value,
        partition,
        delay,
    })
}

pub(crate) fn scenario() -> impl Strategy<Value = Scenario> {
    let kinds = prop_oneof![
        3 => kind().prop_map(|k| vec![k]),
        1 => Just(vec![Kind::Snapshot]),
        1 => prop::collection::vec(kind(), 2..4),
    ];
    let unit = prop_oneof![Just(Unit::Millisecond), Just(Unit::Second), Just(Unit::Minute)];
    let policy = prop_oneof![Just(Policy::Adjust), Just(Policy::Drop), Just(Policy::DeadLetter)];
    let tolerances = (policy, 0_i64..6, 0_i64..6);
    let cuts = (1_usize..4, 1_usize..6, 1_i64..3, 1_i64..30);
    (kinds, unit, 0_usize..3, tolerances, cuts, prop::collection::vec(event(), 0..40)).prop_map(
        |(kinds, unit, origin, (policy, late, disorder), (partitions, cut, least, then), events)| Scenario {
            kinds,
            unit,
            // 2026, 1970, and a time before 1970 whose events end after it.
            origin: [NOW, 0, -30 * unit.ticks()][origin],
            policy,
            late,
            disorder,
            partitions,
            cut,
            least,
            then,
            events,
        },
    )
}
