//! The figures of one benchmark run. Each figure compares settled with a limit, such as the time of the bare computation.
//! Both are measured alternately, and the ratio of each pair counts.
//!
//! Absolute times differ by half between runs, but ratios within one run by only a tenth. A gate fails only when even the
//! better quartile is beyond it.

use std::process::ExitCode;
use std::time::Duration;

use chain::Amount;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The bounds of a figure, in thousandths: the gate must not be passed, and the goal should be reached.
#[derive(Debug, Clone, Copy)]
pub enum Bounds {
    /// The ratio is the cost of settled divided by the cost of the limit; smaller is better.
    AtMost { gate: u64, goal: u64 },
    /// The ratio is the throughput of settled divided by the throughput of the limit; larger is better.
    AtLeast { gate: u64, goal: u64 },
    /// A count that must have this value.
    Exactly(u64),
    /// The figure is reported without bounds.
    Informative,
}

/// One pair of measurements: the time per item of the limit and of settled, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub limit: u64,
    pub ours: u64,
}

struct Figure {
    id: &'static str,
    metric: String,
    unit: &'static str,
    bounds: Bounds,
    /// The measured values in thousandths, ascending.
    seen: Vec<u64>,
    /// The times per item in nanoseconds, ascending. Empty for a figure without a limit.
    limit: Vec<u64>,
    ours: Vec<u64>,
}

/// The figures of a run, and the options from the command line.
pub struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
    json: bool,
    wanted: Vec<String>,
}

impl Report {
    /// Reads the command line: `--json` prints JSON, and every other argument selects a figure by its id, such as `P12`.
    pub fn new(bench: &'static str) -> Report {
        let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let before = words.len();
        words.retain(|word| word != "--json");
        Report { bench, figures: Vec::new(), json: words.len() < before, wanted: words }
    }

    /// Returns true when one of these figures is selected, or none is.
    pub fn wants(&self, ids: &[&str]) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| ids.contains(&wanted.as_str()))
    }

    /// Adds a ratio between settled and a limit.
    pub fn ratio(&mut self, id: &'static str, metric: impl Into<String>, bounds: Bounds, samples: &[Sample]) {
        let seen = samples.iter().map(|turn| match bounds {
            Bounds::AtLeast { .. } => thousandths(turn.limit, turn.ours),
            Bounds::AtMost { .. } | Bounds::Exactly(_) | Bounds::Informative => thousandths(turn.ours, turn.limit),
        });
        self.add(Figure {
            id,
            metric: metric.into(),
            unit: "×",
            bounds,
            seen: sorted(seen),
            limit: sorted(samples.iter().map(|turn| turn.limit)),
            ours: sorted(samples.iter().map(|turn| turn.ours)),
        });
    }

    /// Adds a figure without a limit. `value` is in thousandths of its unit.
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
        // Print each figure when it is measured; the table follows at the end.
        eprintln!("{}", figure.line());
        self.figures.push(figure);
    }

    /// Prints all figures. Returns a failure when a figure has passed its gate.
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
            Bounds::Informative => true,
        }
    }

    fn reaches_goal(&self) -> bool {
        match self.bounds {
            Bounds::AtMost { goal, .. } => self.median() <= goal,
            Bounds::AtLeast { goal, .. } => self.median() >= goal,
            Bounds::Exactly(_) | Bounds::Informative => self.keeps_gate(),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.bounds, self.keeps_gate(), self.reaches_goal()) {
            (Bounds::Informative, ..) => "",
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
            Bounds::Informative => (String::new(), String::new()),
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

/// Measures the limit and settled alternately, `count` times after a warm-up. Each closure returns the time for `items`
/// items.
pub fn take_samples(
    count: usize,
    items: u64,
    mut limit: impl FnMut() -> Duration,
    mut ours: impl FnMut() -> Duration,
) -> Vec<Sample> {
    let each = |time: Duration| nanos(time) / items.max(1);
    let mut samples = Vec::with_capacity(count);
    for number in 0..=count {
        let sample = Sample { limit: each(limit()), ours: each(ours()) };
        if number > 0 {
            samples.push(sample);
        }
    }
    samples
}

/// Returns a time in nanoseconds.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns `a / b` in thousandths.
pub fn thousandths(a: u64, b: u64) -> u64 {
    u64::try_from(u128::from(a) * 1_000 / u128::from(b.max(1))).unwrap_or(u64::MAX)
}

/// Returns the minimum (0 quarters), a quartile, or the maximum (4 quarters) of sorted values.
pub fn quantile(sorted: &[u64], quarters: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * quarters + 2) / 4).copied().unwrap_or_default()
}

/// Returns the values in ascending order.
pub fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

fn decimal(thousandths: u64) -> String {
    let keep = if thousandths >= 100_000 { 1_000 } else { 10 };
    Amount::from(thousandths / keep * keep).to_decimal(3)
}

/// Returns thousandths as a JSON number.
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
