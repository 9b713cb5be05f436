//! What the check of a payload costs, by the samples in `tests/corpus/payload`.

use std::{hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wigwag::policy::payload::{Kind, check};

/// The shapes that make up a call, and then those that take the longer ways through the check.
const SAMPLES: [&str; 9] = [
    "candidate",
    "candidate-from",
    "answer",
    "offer",
    "sealed",
    "chat",
    "candidates-pretty",
    "offer-solidus",
    "offer-twice-encoded",
];

fn samples(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/payload");
    let mut group = criterion.benchmark_group("payload");
    for sample in SAMPLES {
        let payload = std::fs::read(folder.join(sample).with_extension("json")).expect("a sample");
        assert_eq!(check(&payload, Kind::Signal, Some("alice")), Ok(()), "{sample}");
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_with_input(BenchmarkId::new("check", sample), &payload, |bencher, payload| {
            bencher.iter(|| check(black_box(payload), Kind::Signal, black_box(Some("alice"))));
        });
    }
    group.finish();
}

criterion_group!(benches, samples);
criterion_main!(benches);
