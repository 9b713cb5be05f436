//! What deciding over a publish costs, with the shipped table and a token's grants.

#[path = "../tests/corpus/alice.rs"]
mod alice;

use std::{hint::black_box, time::Instant};

use alice::{alice, offer, policy, publish};
use criterion::{Criterion, criterion_group, criterion_main};
use wigwag::{
    hub::SubscriberId,
    policy::{
        Asker,
        payload::{Kind, check},
    },
    wire::mqtt::QoS,
};

const GRANTS: &str =
    r#"{"rooms":{"demo":["join"],"standup-*":["join","admin"]},"publish":["app/alice/#","users/+/inbox"]}"#;

fn decisions(criterion: &mut Criterion) {
    let (policy, alice, offer) = (policy(), alice(GRANTS), offer());
    let in_room = |room: &str| room == "demo";
    let asker = Asker { identity: &alice, client_id: "tab-1", in_room: &in_room };
    let mut group = criterion.benchmark_group("policy");
    for (what, topic, allowed) in [
        ("a member's signal", "rooms/demo/signal", true),
        ("a member's signal to one", "rooms/demo/signal/bob", true),
        ("a topic by grant", "app/alice/state", true),
        ("a signal to another room, denied", "rooms/secret/signal", false),
        ("somebody's errors, denied", "users/bob/errors", false),
    ] {
        let publish = publish(topic, &offer, QoS::AtMostOnce, false);
        assert_eq!(policy.decide(&asker, &publish).is_ok(), allowed, "{what}");
        group.bench_function(what, |bencher| {
            bencher.iter(|| policy.decide(black_box(&asker), black_box(&publish)).is_ok())
        });
    }
    group.bench_function("the name tag of an offer of 6 KB", |bencher| {
        bencher.iter(|| check(black_box(&offer), Kind::Signal, black_box(Some("alice"))));
    });
    let signal = publish("rooms/demo/signal", &offer, QoS::AtMostOnce, false);
    let now = Instant::now();
    group.bench_function("a member's offer, with its check and its copy", |bencher| {
        bencher.iter(|| policy.publish(black_box(&asker), SubscriberId(1), black_box(&signal), now).is_ok());
    });
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
