//! A message's way, step by step and as a whole, in time and in allocations: a candidate of 200 bytes, QoS 1, MQTT 3.1.1
//! over WebSocket, in a room of two, with the shipped topic table.

#[path = "support/counting.rs"]
mod counting;
mod support;
#[path = "support/workloads.rs"]
mod workloads;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use counting::{Counting, allocations};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use support::{World, candidate};
use wigwag::{
    measured::Steps,
    wire::{
        mqtt::{Packet, Publish, PublishHeader, QoS, Version, decode, publish_header},
        ws::{self, Deframer, FrameHeader, Role},
    },
};
use workloads::{NAMES, Workload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: ws::Limits = ws::Limits { frame: 1 << 20, message: 1 << 20 };

fn steps(criterion: &mut Criterion) {
    let world = World::new(Version::V311, true);
    let topic = "rooms/bench/signal";
    let (mut sender, mut receiver) = (world.join("a-000000", &[topic]), world.join("b-000000", &[topic]));
    world.settle();
    let mut steps = Steps::of(&world.running, &sender.id).expect("it is connected");
    let framed = world.publish(topic, QoS::AtLeastOnce, 1, &candidate(&sender.id));
    let mut packet = framed.clone();
    let length = unframe(&mut packet);
    packet.truncate(length);
    let Ok(Some((Packet::Publish(publish), _))) = decode(&packet, Version::V311, usize::MAX) else { unreachable!() };
    let now = Instant::now();
    let mut group = criterion.benchmark_group("hot path");

    let mut frame = framed.clone();
    group.bench_function("unframe", |bencher| {
        bencher.iter(|| {
            frame.copy_from_slice(&framed);
            unframe(black_box(&mut frame))
        });
    });
    let decoded = || decode(black_box(&packet), Version::V311, usize::MAX).is_ok();
    assert_eq!(allocations(decoded), (0, true), "decoding allocates nothing");
    group.bench_function("decode", |bencher| bencher.iter(decoded));

    let permit = |steps: &Steps, publish: &Publish<'_>| steps.permit(black_box(publish), now).expect("a member");
    assert_eq!(allocations(|| permit(&steps, &publish)).0, 1, "a permit is one allocation");
    group.bench_function("permit", |bencher| bencher.iter(|| permit(&steps, &publish)));

    // What a receiver has queued is written now and then, or its queue would be full; that is not counted.
    let mut deliver = |rounds: u64, writes: bool| {
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            let permit = permit(&steps, &publish);
            let start = Instant::now();
            assert!(steps.route(permit, now));
            if !writes {
                spent += start.elapsed();
            }
            let start = Instant::now();
            steps.write(now);
            if writes {
                spent += start.elapsed();
            }
            world.receive(&mut receiver);
            world.receive(&mut sender);
            world.settle();
        }
        spent
    };
    deliver(100, false);
    group.bench_function("route (to two)", |bencher| bencher.iter_custom(|rounds| deliver(rounds, false)));
    group.bench_function("write (to two)", |bencher| bencher.iter_custom(|rounds| deliver(rounds, true)));

    let mut out = Vec::with_capacity(1024);
    let header = PublishHeader {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        packet_id: publish.packet_id,
        topic_alias: None,
        message_expiry: None,
        subscription_ids: &[],
        properties: &[],
        received: None,
    };
    let mut encoded = || {
        out.clear();
        publish_header(&mut out, Version::V311, black_box(&header), publish.payload.len());
        FrameHeader::binary(out.len() + publish.payload.len()).len()
    };
    assert_eq!(allocations(&mut encoded).0, 0, "encoding allocates nothing");
    group.bench_function("encode", |bencher| bencher.iter(&mut encoded));
    group.finish();
}

fn unframe(bytes: &mut [u8]) -> usize {
    let end = bytes.len();
    Deframer::new(Role::Server).deframe(bytes, 0, end, 0, &LIMITS).write
}

/// From the bytes of the sender to those of the receivers and back to their acknowledgements, with the runtime between;
/// for `connect` from the first byte to the last.
fn together(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("all together");
    for name in NAMES {
        let mut workload = Workload::new(name).expect("it is in the list");
        workload.warm_up();
        let (count, done) = allocations(|| (0..100).map(|_| workload.step(World::settle)).sum::<usize>());
        println!("{name}: {:.2} allocations for each, the generator's own included", count as f64 / done as f64);
        group.throughput(Throughput::Elements(workload.step(World::settle) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| (), |()| workload.step(World::settle), BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, steps, together);
criterion_main!(benches);
