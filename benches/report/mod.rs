//! The figures of one run: a limit and ours, taken in turns, judged by the ratio of each turn.
//!
//! Absolute times move by half from run to run, ratios inside one run by a tenth. A gate fails only when even the quartile
//! on the good side has passed it.

use std::process::ExitCode;
use std::time::Duration;

use chain::Amount;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// What a figure must not pass and what it should reach, in thousandths.
#[derive(Debug, Clone, Copy)]
pub enum Bounds {
    /// Ours must cost little: the ratio is our cost by the limit's.
    AtMost { gate: u64, goal: u64 },
    /// Ours must do much: the ratio is our throughput by the limit's.
    AtLeast { gate: u64, goal: u64 },
    /// Counted, not timed.
    Exactly(u64),
    /// Told without a judgement.
    Told,
}

/// One turn: what an item costs at the limit and with us, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub limit: u64,
    pub ours: u64,
}

struct Figure {
    id: &'static str,
    metric: String,
    unit: &'static str,
    bounds: Bounds,
    /// Thousandths, ascending.
    seen: Vec<u64>,
    /// Nanoseconds for each item, ascending; empty for what has no limit.
    limit: Vec<u64>,
    ours: Vec<u64>,
}

pub struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
    json: bool,
    wanted: Vec<String>,
}

impl Report {
    /// `--json` writes JSON to standard output; every other word names a figure to take, such as `P12`.
    pub fn new(bench: &'static str) -> Report {
        let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let before = words.len();
        words.retain(|word| word != "--json");
        Report { bench, figures: Vec::new(), json: words.len() < before, wanted: words }
    }

    /// Whether one of these figures is asked for.
    pub fn wants(&self, ids: &[&str]) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| ids.contains(&wanted.as_str()))
    }

    /// A ratio to a limit that was taken in the same turns.
    pub fn ratio(&mut self, id: &'static str, metric: impl Into<String>, bounds: Bounds, turns: &[Turn]) {
        let seen = turns.iter().map(|turn| match bounds {
            Bounds::AtLeast { .. } => thousandths(turn.limit, turn.ours),
            Bounds::AtMost { .. } | Bounds::Exactly(_) | Bounds::Told => thousandths(turn.ours, turn.limit),
        });
        self.add(Figure {
            id,
            metric: metric.into(),
            unit: "×",
            bounds,
            seen: sorted(seen),
            limit: sorted(turns.iter().map(|turn| turn.limit)),
            ours: sorted(turns.iter().map(|turn| turn.ours)),
        });
    }

    /// A figure with a unit of its own; `value` in thousandths of it.
    pub fn plain(
        &mut self,
        id: &'static str,
        metric: impl Into<String>,
        unit: &'static str,
        bounds: Bounds,
        value: u64,
    ) {
        let (seen, metric) = (vec![value], metric.into());
        self.add(Figure { id, metric, unit, bounds, seen, limit: Vec::new(), ours: Vec::new() });
    }

    fn add(&mut self, figure: Figure) {
        // Seen while it runs; the table comes at the end.
        eprintln!("{}", figure.line());
        self.figures.push(figure);
    }

    /// Prints what was asked for. Fails when a gate was passed.
    pub fn end(self) -> ExitCode {
        if self.json {
            let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
            println!("{:#}", json!({ "bench": self.bench, "figures": figures }));
        } else {
            println!("\n{}", HEAD);
            for figure in &self.figures {
                println!("{}", figure.line());
            }
        }
        let passed = self.figures.iter().all(Figure::keeps_gate);
        if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const HEAD: &str = "id   metric                                                       limit       ours      seen  [quartiles]        gate    goal  verdict";

impl Figure {
    fn median(&self) -> u64 {
        quantile(&self.seen, 2)
    }

    fn keeps_gate(&self) -> bool {
        match self.bounds {
            Bounds::AtMost { gate, .. } => quantile(&self.seen, 1) <= gate,
            Bounds::AtLeast { gate, .. } => quantile(&self.seen, 3) >= gate,
            Bounds::Exactly(value) => self.seen.iter().all(|seen| *seen == value),
            Bounds::Told => true,
        }
    }

    fn reaches_goal(&self) -> bool {
        match self.bounds {
            Bounds::AtMost { goal, .. } => self.median() <= goal,
            Bounds::AtLeast { goal, .. } => self.median() >= goal,
            Bounds::Exactly(_) | Bounds::Told => self.keeps_gate(),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.bounds, self.keeps_gate(), self.reaches_goal()) {
            (Bounds::Told, ..) => "",
            (_, false, _) => "MISSED",
            (_, true, false) => "gate",
            (_, true, true) => "goal",
        }
    }

    fn gate_and_goal(&self) -> (String, String) {
        match self.bounds {
            Bounds::AtMost { gate, goal } => (format!("≤ {}", decimal(gate)), format!("≤ {}", decimal(goal))),
            Bounds::AtLeast { gate, goal } => (format!("≥ {}", decimal(gate)), format!("≥ {}", decimal(goal))),
            Bounds::Exactly(value) => (format!("= {}", decimal(value)), format!("= {}", decimal(value))),
            Bounds::Told => (String::new(), String::new()),
        }
    }

    fn line(&self) -> String {
        let (gate, goal) = self.gate_and_goal();
        let time = |times: &[u64]| if times.is_empty() { String::new() } else { time(quantile(times, 2)) };
        let quartiles = match self.seen.len() {
            1 => String::new(),
            _ => format!("[{} {}]", decimal(quantile(&self.seen, 1)), decimal(quantile(&self.seen, 3))),
        };
        let seen = format!("{} {}", decimal(self.median()), self.unit);
        format!(
            "{:<4} {:<56} {:>10} {:>10} {seen:>9}  {quartiles:<16} {gate:>7} {goal:>7}  {}",
            self.id,
            self.metric,
            time(&self.limit),
            time(&self.ours),
            self.verdict()
        )
    }

    fn json(&self) -> Value {
        let (gate, goal) = self.gate_and_goal();
        let spread = |ns: &[u64]| {
            let at = |quarter| if ns.is_empty() { Value::Null } else { json!(quantile(ns, quarter)) };
            json!({ "min": at(0), "lower_quartile": at(1), "median": at(2), "upper_quartile": at(3) })
        };
        json!({
            "id": self.id, "metric": self.metric, "unit": self.unit, "gate": gate, "goal": goal,
            "seen": number(self.median()),
            "seen_quartiles": [number(quantile(&self.seen, 1)), number(quantile(&self.seen, 3))],
            "rounds": self.seen.len(), "limit_ns": spread(&self.limit), "ours_ns": spread(&self.ours),
            "keeps_gate": self.keeps_gate(), "reaches_goal": self.reaches_goal(),
        })
    }
}

/// Takes both in turns, the first turn for nothing; each tells how long `items` of it took.
pub fn turns(
    count: usize,
    items: u64,
    mut limit: impl FnMut() -> Duration,
    mut ours: impl FnMut() -> Duration,
) -> Vec<Turn> {
    let each = |time: Duration| nanos(time) / items.max(1);
    let mut turns = Vec::with_capacity(count);
    for number in 0..=count {
        let turn = Turn { limit: each(limit()), ours: each(ours()) };
        if number > 0 {
            turns.push(turn);
        }
    }
    turns
}

pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `a / b` in thousandths.
pub fn thousandths(a: u64, b: u64) -> u64 {
    u64::try_from(u128::from(a) * 1_000 / u128::from(b.max(1))).unwrap_or(u64::MAX)
}

/// The minimum, a quartile or the maximum of what is sorted: 0 to 4 quarters.
pub fn quantile(sorted: &[u64], quarters: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * quarters + 2) / 4).copied().unwrap_or_default()
}

pub fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

fn decimal(thousandths: u64) -> String {
    let keep = if thousandths >= 100_000 { 1_000 } else { 10 };
    Amount::from(thousandths / keep * keep).to_decimal(3)
}

/// A JSON number from thousandths.
fn number(thousandths: u64) -> Value {
    let text = Amount::from(thousandths).to_decimal(3);
    RawValue::from_string(text).ok().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(Value::Null)
}

fn time(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{} µs", decimal(nanos)),
        _ => format!("{} ms", decimal(nanos / 1_000)),
    }
}
