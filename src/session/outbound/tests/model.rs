//! Random scripts against a receiver that does as the specification says, over connections that break at any moment.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Push(u8),
    /// Takes at most this many transmissions.
    Send(usize),
    /// The receiver says the next but so many of what it has to say.
    Answer(usize),
    /// The connection breaks: what the receiver has not said is lost.
    Break,
    /// A new connection, with a window of its own.
    Connect(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the packets' own names")]
enum Answer {
    PubAck(NonZeroU16),
    PubRec(NonZeroU16),
    PubComp(NonZeroU16),
}

/// What a correct receiver knows (4.3), and what it must never see.
#[derive(Default)]
struct Receiver {
    answers: Vec<Answer>,
    /// QoS 2 identifiers received and not released.
    unreleased: BTreeSet<NonZeroU16>,
    /// Exchanges open on this connection, with their message.
    open: BTreeSet<NonZeroU16>,
    /// Which message last went by an identifier that is in use.
    in_use: BTreeMap<NonZeroU16, usize>,
    /// Messages as the application got them: QoS 2 without repetitions.
    delivered: Vec<usize>,
}

impl Receiver {
    fn receive(&mut self, transmit: Transmit, window: u16) {
        match transmit {
            Transmit::Publish { delivery, packet_id, dup } => {
                let serial: usize = delivery.message.topic().parse().unwrap();
                let Some(id) = packet_id else {
                    assert!(delivery.qos == QoS::AtMostOnce && !dup); // [MQTT-3.3.1-2]
                    return self.delivered.push(serial);
                };
                let known = self.in_use.insert(id, serial);
                assert_eq!(known.is_some(), dup, "an identifier in use names one message, sent again as a duplicate");
                assert!(known.is_none_or(|known| known == serial));
                assert!(self.open.insert(id), "twice on one connection");
                if delivery.qos == QoS::AtLeastOnce {
                    self.delivered.push(serial);
                    self.answers.push(Answer::PubAck(id));
                } else {
                    if self.unreleased.insert(id) {
                        self.delivered.push(serial); // [MQTT-4.3.3-10]
                    }
                    self.answers.push(Answer::PubRec(id));
                }
            }
            Transmit::PubRel { packet_id } => {
                assert!(self.open.insert(packet_id), "twice on one connection");
                self.release(packet_id);
            }
        }
        assert!(self.open.len() <= window.into(), "beyond the window [MQTT-4.9.0-2]");
    }

    fn release(&mut self, id: NonZeroU16) {
        self.unreleased.remove(&id);
        self.answers.push(Answer::PubComp(id));
    }

    fn over(&mut self, id: NonZeroU16) {
        self.open.remove(&id);
        self.in_use.remove(&id);
    }

    fn answer(&mut self, which: usize, outbound: &mut Outbound) {
        if self.answers.is_empty() {
            return;
        }
        match self.answers.remove(which % self.answers.len()) {
            Answer::PubAck(id) => {
                assert!(outbound.puback(id));
                self.over(id);
            }
            Answer::PubRec(id) => {
                assert_eq!(outbound.pubrec(id, ReasonCode::SUCCESS), Some(ReasonCode::SUCCESS));
                self.release(id);
            }
            Answer::PubComp(id) => {
                assert!(outbound.pubcomp(id));
                self.over(id);
            }
        }
    }

    fn disconnected(&mut self) {
        self.answers.clear();
        self.open.clear();
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..3u8).prop_map(Event::Push),
        4 => (1..8usize).prop_map(Event::Send),
        6 => (0..4usize).prop_map(Event::Answer),
        1 => Just(Event::Break),
        2 => (1..6u16).prop_map(Event::Connect),
    ];
    vec(event, 0..200)
}

/// What was accepted at QoS 1 and 2, and is to arrive, and all that was accepted.
#[derive(Default)]
struct Accepted {
    all: Vec<usize>,
    acknowledged: Vec<usize>,
    exactly_once: BTreeSet<usize>,
}

fn push(outbound: &mut Outbound, serial: usize, qos: u8, connected: bool, accepted: &mut Accepted) {
    let limits = QueueLimits { messages: 12, own: 12, bytes: 1000 };
    let qos = QoS::from_bits(qos).unwrap();
    let before = outbound.queued();
    match outbound.push(delivery(&message(&serial.to_string(), b""), qos), &limits, connected, Instant::now(), &mut 0) {
        Queued::Accepted => {
            accepted.all.push(serial);
            if qos > QoS::AtMostOnce {
                accepted.acknowledged.push(serial);
            }
            if qos == QoS::ExactlyOnce {
                accepted.exactly_once.insert(serial);
            }
        }
        Queued::Dropped => assert!(qos == QoS::AtMostOnce && (!connected || before >= 6)),
        Queued::Overflow => assert!(qos > QoS::AtMostOnce && before >= 12),
    }
}

fn run(events: &[Event]) {
    let (mut outbound, mut receiver, mut accepted) = (Outbound::default(), Receiver::default(), Accepted::default());
    let (mut window, now) = (Some(3), Instant::now());
    let connect = |outbound: &mut Outbound, receiver: &mut Receiver, to| {
        receiver.disconnected();
        outbound.reconnect();
        Some(to)
    };
    for (serial, event) in events.iter().enumerate() {
        match *event {
            Event::Push(qos) => push(&mut outbound, serial, qos, window.is_some(), &mut accepted),
            Event::Send(most) => {
                for _ in 0..most {
                    let Some(window) = window else { break };
                    let Some(transmit) = outbound.next(window, now, &mut 0) else { break };
                    receiver.receive(transmit, window);
                }
            }
            Event::Answer(which) => receiver.answer(which, &mut outbound),
            Event::Break => {
                receiver.disconnected();
                window = None;
            }
            Event::Connect(to) => window = connect(&mut outbound, &mut receiver, to),
        }
    }
    connect(&mut outbound, &mut receiver, 2);
    while outbound.queued() + outbound.in_flight() > 0 {
        while let Some(transmit) = outbound.next(2, now, &mut 0) {
            receiver.receive(transmit, 2);
        }
        receiver.answer(0, &mut outbound);
    }
    check(&outbound, receiver.delivered, &accepted);
}

fn check(outbound: &Outbound, delivered: Vec<usize>, accepted: &Accepted) {
    let mut seen = BTreeSet::new();
    let first: Vec<_> = delivered.iter().copied().filter(|serial| seen.insert(*serial)).collect();
    assert_eq!(first, accepted.all, "everything accepted arrives, in the order it was queued [MQTT-4.6.0-6]");
    for serial in &accepted.exactly_once {
        assert_eq!(delivered.iter().filter(|it| *it == serial).count(), 1, "[MQTT-4.3.3-1]");
    }
    assert!(accepted.acknowledged.iter().all(|serial| seen.contains(serial)));
    assert_eq!(outbound.bytes, 0);
    assert!(outbound.queue.capacity() <= 8 && outbound.flight.capacity() <= 8, "a burst's memory is given back");
}

proptest! {
    #[test]
    fn whatever_happens_messages_arrive_in_order_and_as_often_as_their_qos_says(events in events()) {
        run(&events);
    }
}
