//! Somebody with a token, the shipped rules, and what deciding over a publish takes: for who measures or counts that.

use std::{path::Path, sync::Arc, time::SystemTime};

use wigwag::{
    auth::{Authenticator, GrantClaims, Grants, Identity},
    config::AuthConfig,
    policy::{Policy, TopicLimits},
    wire::mqtt::{Publish, PublishProperties, QoS},
};

/// The shipped topic table.
pub fn policy() -> Policy {
    let auth = Arc::new(Authenticator::new(&AuthConfig::default()).expect("nothing that could be wrong"));
    let rows = wigwag::Config::default().topics;
    Policy::new(TopicLimits { levels: 16, bytes: 1024 }, &rows, auth)
}

/// Alice, as a token with these grants has her.
pub fn alice(grants: &str) -> Identity {
    let claims: GrantClaims = serde_json::from_str(grants).expect("grants");
    Identity {
        user: "alice".into(),
        grants: Arc::new(Grants::from_claims(&claims)),
        expiry: None,
        issued_at: SystemTime::now(),
        token_id: Some("t-1".into()),
        claims: Box::new([("tenant".into(), "acme".into())]),
        tagged: true,
        believed: false,
    }
}

pub fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, retain: bool) -> Publish<'a> {
    Publish { dup: false, qos, retain, topic, packet_id: None, properties: PublishProperties::default(), payload }
}

/// An offer of alice's, of 6 KB.
pub fn offer() -> Vec<u8> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/payload/offer.json");
    std::fs::read(sample).expect("a sample")
}
