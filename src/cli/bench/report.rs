//! What a run came to, for people and for programs, and how far it is meanwhile.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Failure;
use super::process::Cost;

/// Rows of a table: what, and how much.
pub type Rows = Vec<(&'static str, String)>;

/// Prints a report as one line of JSON, or as a table.
pub fn print(json: bool, report: &impl Serialize, rows: &Rows) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string(report).map_err(|error| Failure::Runtime(error.to_string()))? + "\n"
    } else {
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        rows.iter().map(|(label, value)| format!("{label:width$}  {value}\n")).collect()
    };
    stdout().write_all(text.as_bytes()).map_err(|error| Failure::Runtime(format!("standard output: {error}")))
}

/// CPU time in microseconds for each of `count`.
pub fn micros_each(seconds: f64, count: u64) -> f64 {
    seconds * 1e6 / (count.max(1)) as f64
}

/// The rows that every workload has; `what` is one of those that `count` counts.
pub fn cost_rows(cost: &Cost, count: u64, what: &str) -> Rows {
    let share = |cpu: f64| 100.0 * cpu / cost.seconds;
    let each = |cpu: f64| format!("{:.2} µs CPU a {what}, {:.0} % of a core", micros_each(cpu, count), share(cpu));
    let mut rows = Vec::new();
    if let Some(cpu) = cost.server_cpu_seconds {
        rows.push(("broker", each(cpu)));
    }
    if let Some(memory) = cost.server_memory {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (rss, pss) = (mebibytes(memory.rss), mebibytes(memory.pss));
        rows.push(("broker memory", format!("{rss:.1} MiB resident, {pss:.1} MiB proportional")));
    }
    rows.push(("generator", each(cost.generator_cpu_seconds)));
    rows
}

/// A line on a terminal that says how far a run is; nowhere else.
pub struct Progress {
    shown: bool,
    last: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(200);

    pub fn new(json: bool) -> Self {
        Self { shown: !json && stderr().is_terminal(), last: Instant::now() }
    }

    /// Shows `line` if the last one is old enough.
    pub fn tick(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.shown && now.duration_since(self.last) >= Self::EVERY {
            self.last = now;
            // A terminal that takes nothing misses nothing.
            let _ = write!(stderr(), "\r\x1b[K{}", line());
        }
    }
}

/// Leaves the terminal as it was.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
