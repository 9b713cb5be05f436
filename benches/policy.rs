//! What deciding over a publish costs, with the shipped table and a token's grants.

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use criterion::{Criterion, criterion_group, criterion_main};
use wigwag::{
    auth::{Authenticator, GrantClaims, Grants, Identity},
    config::AuthConfig,
    hub::SubscriberId,
    policy::{
        Asker, Policy, TopicLimits,
        payload::{Kind, check},
    },
    wire::mqtt::{Publish, PublishProperties, QoS},
};

fn policy() -> Policy {
    let auth = Authenticator::new(&AuthConfig::default()).expect("nothing that could be wrong");
    let limits = TopicLimits { levels: 16, bytes: 1024 };
    let tokens = wigwag::Config::default().topics;
    Policy::new(limits, &tokens, Arc::new(auth))
}

fn alice() -> Identity {
    let claims: GrantClaims = serde_json::from_str(
        r#"{"rooms":{"demo":["join"],"standup-*":["join","admin"]},"publish":["app/alice/#","users/+/inbox"]}"#,
    )
    .expect("grants");
    Identity {
        user: "alice".into(),
        grants: Arc::new(Grants::from_claims(&claims)),
        expiry: None,
        issued_at: SystemTime::now(),
        token_id: None,
        claims: Box::default(),
        tagged: true,
        believed: false,
    }
}

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    let properties = PublishProperties::default();
    Publish { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None, properties, payload }
}

fn decisions(criterion: &mut Criterion) {
    let (policy, alice) = (policy(), alice());
    let in_room = |room: &str| room == "demo";
    let asker = Asker { identity: &alice, client_id: "tab-1", in_room: &in_room };
    let offer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/payload/offer.json");
    let offer = std::fs::read(offer).expect("a sample");
    let mut group = criterion.benchmark_group("policy");
    for (what, topic, allowed) in [
        ("a member's signal", "rooms/demo/signal", true),
        ("a member's signal to one", "rooms/demo/signal/bob", true),
        ("a topic by grant", "app/alice/state", true),
        ("a signal to another room, denied", "rooms/secret/signal", false),
        ("somebody's errors, denied", "users/bob/errors", false),
    ] {
        let publish = publish(topic, &offer);
        assert_eq!(policy.decide(&asker, &publish).is_ok(), allowed, "{what}");
        group.bench_function(what, |bencher| {
            bencher.iter(|| policy.decide(black_box(&asker), black_box(&publish)).is_ok())
        });
    }
    group.bench_function("the name tag of an offer of 6 KB", |bencher| {
        bencher.iter(|| check(black_box(&offer), Kind::Signal, black_box(Some("alice"))));
    });
    let signal = publish("rooms/demo/signal", &offer);
    let now = Instant::now();
    group.bench_function("a member's offer, with its check and its copy", |bencher| {
        bencher.iter(|| policy.publish(black_box(&asker), SubscriberId(1), black_box(&signal), now).is_ok());
    });
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
