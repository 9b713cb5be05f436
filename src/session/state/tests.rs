//! Flushes over streams that take some bytes, none, hold them back or fail.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use super::*;
use crate::{
    policy::Asker,
    session::{
        Close, Delivery, QueueLimits, Terms,
        testing::{Script, Woken, delivery, expiring_message, id, identity, message, packets, policy, terms},
    },
    wire::mqtt::{QoS, Version},
};

const LIMITS: QueueLimits = QueueLimits { messages: 100, own: 100, bytes: 1 << 20 };
const CLOSE: Close = Close { reason: ReasonCode::SERVER_SHUTTING_DOWN, what: "over" };

/// A session whose client is the script.
struct Client {
    state: State,
    batch: Batch,
    script: Script,
    woken: Arc<Woken>,
    now: Instant,
}

impl Client {
    fn new(terms: Terms, websocket: bool) -> Self {
        let script = Script::default();
        let (link, woken) = script.link(terms, websocket);
        let state = State { attachment: Attachment::Link(link), ..State::default() };
        Self { state, batch: Batch::default(), script, woken, now: Instant::now() }
    }

    fn v5() -> Self {
        Self::new(terms(Version::V5), false)
    }

    fn push(&mut self, delivery: Delivery) {
        self.state.outbound.push(delivery, &LIMITS, true, Instant::now(), &mut 0);
    }

    fn publish(&mut self, topic: &str, payload: usize) {
        self.push(delivery(&message(topic, &vec![b'.'; payload]), QoS::AtLeastOnce));
    }

    fn flush(&mut self, control: &[u8]) -> Flushed {
        self.state.flush(&mut self.batch, control, self.now)
    }

    fn link(&mut self) -> &mut Link {
        self.state.link().unwrap()
    }
}

const PINGRESP: &[u8] = b"\xD0\x00";

/// The packets as `topic`, `topic again`, or their kind.
fn names(bytes: &[u8]) -> Vec<String> {
    let name = |packet: Packet<'_>| match packet {
        Packet::Publish(publish) if publish.dup => format!("{} again", publish.topic),
        Packet::Publish(publish) => publish.topic.into(),
        Packet::PingResp => "pong".into(),
        Packet::PubRel(_) => "release".into(),
        Packet::Disconnect(_) => "disconnect".into(),
        other => panic!("{other:?}"),
    };
    packets(bytes, Version::V5).into_iter().map(name).collect()
}

#[test]
fn answers_go_first_then_messages_in_one_write() {
    let mut client = Client::v5();
    client.script.takes(usize::MAX);
    client.publish("a", 3);
    client.publish("b", 5000);
    let flushed = client.flush(PINGRESP);
    assert_eq!(flushed, Flushed { messages: 2, bytes: 5003, ..Flushed::default() });
    assert_eq!(names(&client.script.written()), ["pong", "a", "b"]);
    assert_eq!(client.flush(b""), Flushed::default());
    assert!(client.script.written().is_empty());
}

#[test]
fn a_stream_that_takes_a_few_bytes_at_a_time_gets_the_same_bytes() {
    for websocket in [false, true] {
        let whole = |step: usize| {
            let mut client = Client::new(terms(Version::V5), websocket);
            for number in 0..40 {
                client.publish(&format!("topic/{number}"), number * 40);
            }
            let mut written = Vec::new();
            client.flush(PINGRESP);
            for _ in 0..100_000 {
                client.script.takes(step);
                client.flush(b"");
                let more = client.script.written();
                if more.is_empty() {
                    assert_eq!((client.link().unsent.capacity(), client.link().waiting()), (0, 0));
                    return written;
                }
                written.extend_from_slice(&more);
            }
            panic!("it does not end");
        };
        let expected = whole(usize::MAX);
        assert!(expected.len() > 31_000);
        for step in [13, 1000, 30_000] {
            // Over WebSocket a frame ends where the stream blocked, so only the packets are the same.
            assert!(whole(step) == expected || websocket, "{step} bytes at a time");
        }
    }
}

#[test]
fn what_the_socket_refuses_waits_and_messages_wait_behind_it_in_the_queue() {
    let mut client = Client::v5();
    client.script.takes(10);
    client.publish("a", 100);
    let flushed = client.flush(b"");
    assert!(flushed.newly_blocked);
    let now = client.now;
    assert_eq!(client.link().blocked_since, Some(now));
    client.publish("b", 100);
    let flushed = client.flush(PINGRESP);
    assert_eq!(flushed, Flushed::default(), "somebody watches already");
    assert_eq!(client.state.outbound.queued(), 1, "not encoded before it can go");
    let mut written = client.script.written();
    client.script.takes(usize::MAX);
    assert_eq!(client.flush(b"").messages, 1);
    written.extend(client.script.written());
    assert_eq!(names(&written), ["a", "pong", "b"]);
    assert_eq!((client.link().blocked_since, client.link().waiting()), (None, 0));
}

#[test]
fn a_socket_counts_as_blocked_from_the_last_byte_it_took() {
    let mut client = Client::v5();
    client.publish("a", 100);
    client.flush(b"");
    let start = client.now;
    client.now += Duration::from_secs(1);
    client.flush(b"");
    assert_eq!(client.link().blocked_since, Some(start));
    client.script.takes(1);
    client.flush(b"");
    assert_eq!(client.link().blocked_since, Some(start + Duration::from_secs(1)));
}

#[test]
fn a_tls_stream_that_holds_bytes_back_gets_no_more_until_it_has_passed_them_on() {
    let mut client = Client::v5();
    client.script.takes(usize::MAX);
    client.script.holds(true);
    client.publish("a", 1);
    assert!(client.flush(b"").newly_blocked);
    assert_eq!(names(&client.script.written()), ["a"]);
    assert_eq!(client.link().waiting(), 1, "its task is to see to it");
    client.publish("b", 1);
    client.flush(b"");
    assert!(client.script.written().is_empty());
    client.script.holds(false);
    client.flush(b"");
    assert_eq!(names(&client.script.written()), ["b"]);
    assert_eq!((client.link().blocked_since, client.link().waiting()), (None, 0));
}

#[test]
fn a_socket_that_fails_wakes_its_task_once_and_is_not_written_to_again() {
    for held in [false, true] {
        let mut client = Client::v5();
        client.script.takes(if held { usize::MAX } else { 5 });
        client.script.holds(held);
        client.publish("a", 100);
        client.flush(b"");
        client.flush(&[0; 100_000]);
        assert!(client.link().waiting() > 100_000);
        client.script.fails();
        client.flush(b"");
        assert_eq!(client.woken.times(), 1);
        assert_eq!(client.link().waiting(), 0, "or the task would wait for the socket instead of reading");
        client.publish("b", 1);
        assert_eq!(client.flush(PINGRESP), Flushed::default());
        assert_eq!(client.woken.times(), 1);
        assert_eq!(client.state.outbound.queued(), 1, "kept for the next connection");
        assert!(client.link().blocked_since.is_some(), "the write timeout ends what the task does not");
    }
}

#[test]
fn a_socket_that_fails_at_once_is_watched_too() {
    let mut client = Client::v5();
    client.script.fails();
    client.publish("a", 1);
    assert!(client.flush(b"").newly_blocked);
    assert_eq!(client.woken.times(), 1);
}

#[test]
fn a_corked_connection_collects_answers_and_sends_nothing() {
    let mut client = Client::v5();
    client.script.takes(usize::MAX);
    client.link().corked = true;
    client.publish("a", 1);
    client.flush(PINGRESP);
    assert!(client.script.written().is_empty());
    client.link().corked = false;
    client.flush(b"");
    assert_eq!(names(&client.script.written()), ["pong", "a"]);
}

/// [MQTT-3.14.4-1]
#[test]
fn no_message_follows_a_disconnect() {
    let mut client = Client::v5();
    client.script.takes(usize::MAX);
    client.publish("a", 1);
    client.link().disconnect(CLOSE);
    client.flush(b"");
    client.publish("b", 1);
    client.flush(b"");
    assert_eq!(names(&client.script.written()), ["disconnect"]);
    assert_eq!(client.state.outbound.queued(), 2);
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25], [MQTT-3.3.2-5]
#[test]
fn what_is_too_large_or_too_old_is_counted_and_passed_over() {
    let maximum_packet = NonZeroU32::new(60);
    let mut client = Client::new(Terms { maximum_packet, window: 1, ..terms(Version::V5) }, false);
    client.script.takes(usize::MAX);
    client.publish("large", 100);
    let old = expiring_message("old", b"", Some(1), client.now - Duration::from_secs(2));
    client.push(delivery(&old, QoS::AtLeastOnce));
    client.publish("a", 1);
    let flushed = client.flush(b"");
    assert_eq!(flushed, Flushed { messages: 1, bytes: 1, expired: 1, oversize: 1, ..Flushed::default() });
    assert_eq!(names(&client.script.written()), ["a"]);
    assert_eq!(client.state.outbound.in_flight(), 1);
}

/// [MQTT-4.4.0-1]
#[test]
fn a_new_connection_gets_again_what_was_not_acknowledged() {
    let mut client = Client::v5();
    client.script.takes(usize::MAX);
    client.publish("a", 1);
    client.push(delivery(&message("b", b""), QoS::ExactlyOnce));
    client.flush(b"");
    client.state.outbound.pubrec(id(2), ReasonCode::SUCCESS);
    let (link, _) = client.script.link(terms(Version::V5), false);
    client.state.attachment = Attachment::Link(link);
    client.state.outbound.reconnect();
    client.script.written();
    client.flush(b"");
    assert_eq!(names(&client.script.written()), ["a again", "release"]);
}

#[test]
fn the_absent_are_sent_nothing_and_lose_nothing() {
    let mut client = Client::v5();
    client.publish("a", 1);
    client.state.attachment = Attachment::None;
    client.state.dirty = true;
    assert_eq!(client.flush(PINGRESP), Flushed::default());
    assert!(!client.state.dirty);
    assert_eq!(client.state.outbound.queued(), 1);
}

#[test]
fn a_burst_larger_than_one_batch_goes_out_whole() {
    let window = NonZeroU16::MAX.get();
    let mut client = Client::new(Terms { window, ..terms(Version::V5) }, false);
    client.script.takes(usize::MAX);
    for _ in 0..100 {
        client.publish("t", 2000);
    }
    let flushed = client.flush(b"");
    assert_eq!((flushed.messages, flushed.bytes), (100, 200_000));
    assert_eq!(names(&client.script.written()).len(), 100);
}

#[test]
fn subscriptions_are_found_by_filter_and_shrink_when_they_are_gone() {
    let mut state = State::default();
    for filter in ["b", "a", "c", "$share/g/a"] {
        let Err(position) = state.find(filter) else { panic!("{filter} is not there yet") };
        let identity = identity("user");
        let asker = Asker { identity: &identity, client_id: "client", in_room: &|_| false };
        let permit = policy().subscribe(&asker, filter, SubscribeOptions::new(QoS::AtMostOnce)).unwrap();
        state.subscriptions.insert(position, Kept::new(&permit, None));
    }
    assert!(state.subscriptions.is_sorted_by(|one, other| one.filter < other.filter));
    assert!(!state.forget("d"));
    assert!(["c", "$share/g/a", "b", "a"].iter().all(|filter| state.forget(filter)));
    assert_eq!(state.subscriptions.capacity(), 0);
}
