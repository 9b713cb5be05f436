//! Latencies, to three digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Nanoseconds; what is longer counts as this.
const MAX: u64 = 120_000_000_000;

/// See the module.
pub struct Latencies(Histogram<u64>);

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    pub fn new() -> Self {
        // The bounds are constants that the histogram takes.
        Self(Histogram::new_with_bounds(1_000, MAX, 3).unwrap_or_else(|_| unreachable!("valid bounds")))
    }

    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(MAX));
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |percentile| self.0.value_at_percentile(percentile) as f64 / 1000.0;
        Percentiles { p50: at(50.0), p90: at(90.0), p99: at(99.0), p999: at(99.9), max: self.0.max() as f64 / 1000.0 }
    }
}

impl Percentiles {
    pub fn rows(&self) -> [(&'static str, String); 5] {
        let figure = |value: f64| format!("{value:.0} µs");
        [
            ("latency p50", figure(self.p50)),
            ("p90", figure(self.p90)),
            ("p99", figure(self.p99)),
            ("p99.9", figure(self.p999)),
            ("max", figure(self.max)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Latencies};

    #[test]
    fn percentiles_of_a_thousand() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let found = latencies.percentiles();
        let near = |value: f64, expected: f64| (value - expected).abs() / expected < 0.002;
        assert!(near(found.p50, 500.0) && near(found.p99, 990.0) && near(found.max, 1000.0), "{found:?}");
        latencies.record(Duration::MAX);
        assert!(near(latencies.percentiles().max, 120e6));
        latencies.clear();
        // Below a microsecond nothing is told apart.
        assert!(latencies.percentiles().max < 1.0);
    }
}
