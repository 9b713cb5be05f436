//! How long messages are on their way through the server, by class: from the read that brought them to the write that
//! hands them to a receiver's socket. Counted in buckets, so that a delivery costs two atomic additions, and the clock is
//! read once for each write.
//!
//! What waited for a client that was away is left out: that says something of the client.

use std::{
    array,
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

use super::CLASSES;
use crate::policy::{ClassTag, Rules, table::TopicTable};

/// Upper bounds of the buckets, in microseconds; one more has no bound.
const BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;
const NAME: &str = "wigwag_delivery_seconds";

/// See the module.
pub struct Latency {
    /// By class of the table in force, since that was last moved to `named`.
    by_class: Box<[Counts; CLASSES]>,
    named: Mutex<BTreeMap<Box<str>, Histogram>>,
    /// Which table that is; what was judged by another is not counted.
    generation: AtomicU8,
}

struct Counts {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS],
    micros: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let counts = |_| Counts { buckets: array::from_fn(|_| AtomicU64::new(0)), micros: AtomicU64::new(0) };
        Self { by_class: Box::new(array::from_fn(counts)), named: Mutex::default(), generation: AtomicU8::new(0) }
    }
}

impl Latency {
    /// Counts by another table from now on, which is in force.
    pub fn follow(&self, rules: &Rules) {
        self.generation.store(rules.generation(), Ordering::Relaxed);
    }

    /// Counts messages that have just been handed to a socket: of which class, and when they were received.
    pub fn record(&self, handed: impl Iterator<Item = (ClassTag, Instant)>) {
        let mut now = None;
        for (class, received) in handed {
            let now = *now.get_or_insert_with(Instant::now);
            let counts = self.by_class.get(usize::from(class.class().0));
            let current = class.generation() == self.generation.load(Ordering::Relaxed);
            let Some(counts) = counts.filter(|_| current) else { continue };
            let micros = now.saturating_duration_since(received).as_micros() as u64;
            let bucket = BOUNDS.partition_point(|bound| *bound < micros);
            counts.buckets[bucket].fetch_add(1, Ordering::Relaxed);
            counts.micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Moves what was counted to the names of the classes, by the table that was in force.
    pub(super) fn name_classes(&self, table: &TopicTable) {
        let mut named = self.named.lock();
        for ((_, row), counts) in table.rows().zip(&*self.by_class) {
            let taken = counts.buckets.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
            let micros = counts.micros.swap(0, Ordering::Relaxed);
            if taken != [0; BUCKETS] {
                let histogram = named.entry(row.name.as_str().into()).or_default();
                histogram.buckets.iter_mut().zip(taken).for_each(|(all, more)| *all += more);
                histogram.micros += micros;
            }
        }
    }

    /// A histogram for each class that had deliveries, in the text format of Prometheus.
    pub(super) fn render(&self) -> String {
        let mut text = format!(
            "\n# HELP {NAME} from reading a message to handing it to the socket of a connected receiver, by class\n\
             # TYPE {NAME} histogram\n"
        );
        for (class, histogram) in &*self.named.lock() {
            let mut count = 0;
            let bounds = BOUNDS.iter().map(|micros| (*micros as f64 / 1e6).to_string()).chain(["+Inf".into()]);
            for (bound, more) in bounds.zip(&histogram.buckets) {
                count += more;
                let _ = writeln!(text, "{NAME}_bucket{{class=\"{class}\",le=\"{bound}\"}} {count}");
            }
            let seconds = histogram.micros as f64 / 1e6;
            let _ = writeln!(text, "{NAME}_sum{{class=\"{class}\"}} {seconds}");
            let _ = writeln!(text, "{NAME}_count{{class=\"{class}\"}} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_class_has_its_deliveries_in_buckets_under_its_name() {
        let rules = Rules::new(&Default::default(), false, 0);
        let tag = |name| rules.tag(rules.table.named(name)).expect("a class");
        let latency = Latency::default();
        let ago = |micros| Instant::now() - Duration::from_micros(micros);
        latency
            .record([(tag("signal"), ago(300)), (tag("signal"), ago(20_000_000)), (tag("chat"), ago(0))].into_iter());
        latency.name_classes(&rules.table);
        latency.record([(tag("signal"), ago(700_000))].into_iter());
        latency.name_classes(&rules.table);
        let text = latency.render();
        let figure = |line: &str| {
            let found = text.lines().find_map(|it| it.strip_prefix(line)?.strip_prefix(' '));
            found.unwrap_or_else(|| panic!("{line}: {text}")).parse::<f64>().unwrap()
        };
        let bucket = |bound| figure(&format!("{NAME}_bucket{{class=\"signal\",le=\"{bound}\"}}"));
        assert_eq!([bucket("0.00025"), bucket("10"), bucket("+Inf")], [0.0, 2.0, 3.0], "{text}");
        assert_eq!(figure(&format!("{NAME}_count{{class=\"signal\"}}")), 3.0);
        assert!(figure(&format!("{NAME}_sum{{class=\"signal\"}}")) >= 20.7);
        assert_eq!(figure(&format!("{NAME}_count{{class=\"chat\"}}")), 1.0);
        assert!(!text.contains("presence"), "{text}");
        let next = Rules::new(&Default::default(), false, 1);
        latency.follow(&next);
        latency.record([(tag("chat"), ago(0))].into_iter());
        latency.name_classes(&next.table);
        assert_eq!(latency.render(), text, "of the table before");
    }
}
