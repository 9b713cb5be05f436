//! A client's side of a connection: what it sends, and what it states that comes back.

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    packets::{Ack, ConnAck, Disconnect, Message, Received, SubAck},
    socket::{Progress, Socket},
};
use wigwag::wire::mqtt::{
    self, Packet, QoS, ReasonCode, SubscribeFilters, SubscribeOptions, UnsubscribeFilters, UserProperties, Version,
    decode, encode,
};

/// See the module.
pub struct Connection {
    pub socket: Socket,
    pub version: Version,
    /// The answer to CONNECT.
    pub connack: ConnAck,
    last_id: u16,
    /// Packets that came while another one was waited for.
    earlier: VecDeque<Received>,
}

/// Subscription options of that QoS and otherwise what 3.1.1 has.
pub fn options(qos: u8) -> SubscribeOptions {
    SubscribeOptions::new(QoS::from_bits(qos).expect("a QoS"))
}

/// A QoS, or whole subscription options.
pub trait Options {
    fn options(self) -> SubscribeOptions;
}

impl Options for u8 {
    fn options(self) -> SubscribeOptions {
        options(self)
    }
}

impl Options for SubscribeOptions {
    fn options(self) -> SubscribeOptions {
        self
    }
}

impl Connection {
    pub fn new(socket: Socket, version: Version) -> Self {
        Self { socket, version, connack: ConnAck::default(), last_id: 0, earlier: VecDeque::new() }
    }

    /// Whether the broker resumed a session.
    pub fn present(&self) -> bool {
        self.connack.session_present
    }

    // What a client sends.

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.send(bytes);
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(&mut bytes, self.version, packet);
        self.send_bytes(&bytes);
    }

    /// The next packet identifier.
    pub fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }

    /// Sends a PUBLISH and does not wait; returns its packet identifier, 0 at QoS 0.
    pub fn send_publish(&mut self, mut message: Message) -> u16 {
        if message.qos > 0 && message.id == 0 {
            message.id = self.next_id();
        }
        let mut bytes = Vec::new();
        message.encode(&mut bytes, self.version);
        self.send_bytes(&bytes);
        message.id
    }

    /// Publishes, with the whole handshake of its QoS. Returns the reason of PUBACK or PUBREC; after a QoS 0 message,
    /// waits for a ping to come back.
    #[track_caller]
    pub fn publish(&mut self, message: Message) -> u8 {
        let qos = message.qos;
        let id = self.send_publish(message);
        match qos {
            0 => {
                self.ping();
                0
            }
            1 => self.expect_puback(id).reason,
            _ => {
                let reason = self.expect_pubrec(id).reason;
                if reason < 0x80 {
                    self.send_pubrel(id);
                    assert_eq!(self.expect_pubcomp(id).reason, 0);
                }
                reason
            }
        }
    }

    pub fn send_puback(&mut self, id: u16) {
        self.send(&Packet::PubAck(ack(id, 0)));
    }

    pub fn send_pubrec(&mut self, id: u16) {
        self.send_pubrec_with(id, 0);
    }

    pub fn send_pubrec_with(&mut self, id: u16, reason: u8) {
        self.send(&Packet::PubRec(ack(id, reason)));
    }

    pub fn send_pubrel(&mut self, id: u16) {
        self.send(&Packet::PubRel(ack(id, 0)));
    }

    pub fn send_pubcomp(&mut self, id: u16) {
        self.send(&Packet::PubComp(ack(id, 0)));
    }

    /// Subscribes to one filter; returns its code in the SUBACK.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: impl Options) -> u8 {
        let codes = self.subscribe_all(&[(filter, options.options())], None);
        codes[0]
    }

    /// Subscribes to one filter with a subscription identifier.
    #[track_caller]
    pub fn subscribe_as(&mut self, filter: &str, options: impl Options, id: u32) -> u8 {
        let codes = self.subscribe_all(&[(filter, options.options())], Some(id));
        codes[0]
    }

    /// Subscribes to several filters with one SUBSCRIBE; returns the codes of the SUBACK [MQTT-3.8.4-6].
    #[track_caller]
    pub fn subscribe_all(&mut self, filters: &[(&str, SubscribeOptions)], subscription_id: Option<u32>) -> Vec<u8> {
        let id = self.send_subscribe(filters, subscription_id);
        let suback = self.expect_suback(id);
        assert_eq!(suback.codes.len(), filters.len(), "[MQTT-3.8.4-6]");
        suback.codes
    }

    pub fn send_subscribe(&mut self, filters: &[(&str, SubscribeOptions)], subscription_id: Option<u32>) -> u16 {
        let id = self.next_id();
        let mut bytes = Vec::new();
        filters.iter().for_each(|(filter, options)| SubscribeFilters::push(&mut bytes, filter, *options));
        self.send(&Packet::Subscribe(mqtt::Subscribe {
            packet_id: number(id),
            subscription_id: subscription_id.and_then(NonZeroU32::new),
            user: UserProperties::default(),
            filters: SubscribeFilters::new(&bytes).expect("valid filters"),
        }));
        id
    }

    /// Unsubscribes; returns the codes of the UNSUBACK, of which 3.1.1 has none.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.next_id();
        let mut bytes = Vec::new();
        filters.iter().for_each(|filter| UnsubscribeFilters::push(&mut bytes, filter));
        self.send(&Packet::Unsubscribe(mqtt::Unsubscribe {
            packet_id: number(id),
            user: UserProperties::default(),
            filters: UnsubscribeFilters::new(&bytes).expect("valid filters"),
        }));
        let unsuback = self.wait_for("UNSUBACK", |packet| match packet {
            Packet::UnsubAck(ack) => Some(SubAck::from(ack)),
            _ => None,
        });
        assert_eq!(unsuback.id, id, "[MQTT-3.10.4-4]");
        unsuback.codes
    }

    /// Sends PINGREQ and waits for PINGRESP; what comes before it is kept for later.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        self.expect_pingresp();
    }

    #[track_caller]
    pub fn expect_pingresp(&mut self) {
        self.wait_for("PINGRESP", |packet| matches!(packet, Packet::PingResp).then_some(()));
    }

    /// Says goodbye and waits until the broker has closed the connection.
    #[track_caller]
    pub fn disconnect(self) {
        self.disconnect_with(0, None);
    }

    /// The same, with a reason and a session expiry interval.
    #[track_caller]
    pub fn disconnect_with(mut self, reason: u8, session_expiry: Option<u32>) {
        self.send_disconnect(reason, session_expiry);
        self.expect_closed();
    }

    pub fn send_disconnect(&mut self, reason: u8, session_expiry: Option<u32>) {
        self.send(&Packet::Disconnect(mqtt::Disconnect {
            reason: ReasonCode(reason),
            session_expiry,
            ..mqtt::Disconnect::default()
        }));
    }

    /// Ends the connection without a word.
    pub fn hang_up(self) {
        self.socket.hang_up();
    }

    // What comes back.

    /// The next packet, or why there is none.
    pub fn next(&mut self, timeout: Duration) -> Result<Received, Progress> {
        if let Some(received) = self.earlier.pop_front() {
            return Ok(received);
        }
        self.read_packet(timeout)
    }

    fn read_packet(&mut self, timeout: Duration) -> Result<Received, Progress> {
        let deadline = Instant::now() + timeout;
        loop {
            let length = match decode(&self.socket.inbox, self.version, usize::MAX) {
                Ok(packet) => packet.map(|(_, length)| length),
                Err(error) => panic!("the broker sent what is no packet: {error} in {:02X?}", self.socket.inbox),
            };
            if let Some(length) = length {
                let bytes = self.socket.inbox.drain(..length).collect();
                return Ok(Received { bytes, version: self.version });
            }
            match self.socket.read(deadline.saturating_duration_since(Instant::now())) {
                Progress::Bytes => {}
                other => return Err(other),
            }
        }
    }

    /// The next packet.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        match self.next(PATIENCE) {
            Ok(received) => received,
            Err(Progress::End) => panic!("the broker closed the connection"),
            Err(_) => panic!("nothing came within {PATIENCE:?}"),
        }
    }

    /// Waits for the packet that `wanted` picks and keeps for later what comes before it.
    #[track_caller]
    fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        for position in 0..self.earlier.len() {
            if let Some(found) = wanted(&self.earlier[position].packet()) {
                self.earlier.remove(position);
                return found;
            }
        }
        loop {
            let received = match self.read_packet(PATIENCE) {
                Ok(received) => received,
                Err(Progress::End) => panic!("closed before {what}; came: {:?}", self.earlier),
                Err(_) => panic!("no {what} within {PATIENCE:?}; came: {:?}", self.earlier),
            };
            if let Some(found) = wanted(&received.packet()) {
                return found;
            }
            self.earlier.push_back(received);
        }
    }

    #[track_caller]
    pub fn expect_connack(&mut self) -> ConnAck {
        let received = self.receive();
        match received.packet() {
            Packet::ConnAck(ack) => ConnAck::from(&ack),
            _ => panic!("expected CONNACK, came: {received:?}"),
        }
    }

    /// The next packet is a PUBLISH; it is not acknowledged.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Message {
        let received = self.receive();
        match received.packet() {
            Packet::Publish(publish) => Message::from(&publish),
            _ => panic!("expected PUBLISH, came: {received:?}"),
        }
    }

    /// The next packet is a PUBLISH; the handshake of its QoS is done.
    #[track_caller]
    pub fn expect_message(&mut self) -> Message {
        let message = self.expect_publish();
        match message.qos {
            0 => {}
            1 => self.send_puback(message.id),
            _ => {
                self.send_pubrec(message.id);
                assert_eq!(self.expect_pubrel(message.id).reason, 0);
                self.send_pubcomp(message.id);
            }
        }
        message
    }

    /// Expects that many messages and returns their payloads, as text.
    #[track_caller]
    pub fn expect_payloads(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.expect_message().text().to_owned()).collect()
    }

    #[track_caller]
    pub fn expect_puback(&mut self, id: u16) -> Ack {
        let puback = self.wait_for("PUBACK", |packet| match packet {
            Packet::PubAck(ack) => Some(Ack::from(ack)),
            _ => None,
        });
        assert_eq!(puback.id, id, "[MQTT-2.2.1-5]");
        puback
    }

    #[track_caller]
    pub fn expect_pubrec(&mut self, id: u16) -> Ack {
        let pubrec = self.wait_for("PUBREC", |packet| match packet {
            Packet::PubRec(ack) => Some(Ack::from(ack)),
            _ => None,
        });
        assert_eq!(pubrec.id, id, "[MQTT-2.2.1-5]");
        pubrec
    }

    #[track_caller]
    pub fn expect_pubrel(&mut self, id: u16) -> Ack {
        let pubrel = self.wait_for("PUBREL", |packet| match packet {
            Packet::PubRel(ack) => Some(Ack::from(ack)),
            _ => None,
        });
        assert_eq!(pubrel.id, id, "[MQTT-2.2.1-5]");
        pubrel
    }

    /// The very next packet is that PUBREL.
    #[track_caller]
    pub fn expect_pubrel_next(&mut self, id: u16) {
        let received = self.receive();
        match received.packet() {
            Packet::PubRel(ack) if ack.packet_id.get() == id => {}
            _ => panic!("expected PUBREL {id}, came: {received:?}"),
        }
    }

    #[track_caller]
    pub fn expect_pubcomp(&mut self, id: u16) -> Ack {
        let pubcomp = self.wait_for("PUBCOMP", |packet| match packet {
            Packet::PubComp(ack) => Some(Ack::from(ack)),
            _ => None,
        });
        assert_eq!(pubcomp.id, id, "[MQTT-2.2.1-5]");
        pubcomp
    }

    #[track_caller]
    pub fn expect_suback(&mut self, id: u16) -> SubAck {
        let suback = self.wait_for("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(SubAck::from(ack)),
            _ => None,
        });
        assert_eq!(suback.id, id, "[MQTT-3.8.4-2]");
        suback
    }

    /// Nothing has come and nothing is on its way: the answer to a ping is the next packet.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send(&Packet::PingReq);
        let received = self.receive();
        assert!(matches!(received.packet(), Packet::PingResp), "expected nothing, came: {received:?}");
    }

    /// Nothing comes for so long: for what must not happen later either.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        match self.next(time) {
            Err(Progress::Silence) => {}
            Err(_) => panic!("the broker closed the connection"),
            Ok(received) => panic!("expected silence, came: {received:?}"),
        }
    }

    /// The broker ends the connection: 5.0 is told why, 3.1.1 is not [MQTT-4.13.2-1].
    #[track_caller]
    pub fn expect_disconnect(&mut self, reason: u8) -> Option<String> {
        let mut why = None;
        if self.version == Version::V5 {
            let received = self.receive();
            let disconnect = match received.packet() {
                Packet::Disconnect(disconnect) => Disconnect::from(&disconnect),
                _ => panic!("expected DISCONNECT, came: {received:?}"),
            };
            assert_eq!(disconnect.reason, reason, "DISCONNECT 0x{:02X}: {disconnect:?}", disconnect.reason);
            why = disconnect.reason_string;
        }
        self.expect_closed();
        why
    }

    /// The broker has closed the connection and sent nothing before.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        match self.next(PATIENCE) {
            Err(Progress::End) => {}
            Err(_) => panic!("the connection is still open"),
            Ok(received) => panic!("expected the end of the connection, came: {received:?}"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.socket.hang_up();
    }
}

fn ack(id: u16, reason: u8) -> mqtt::Ack<'static> {
    let user = UserProperties::default();
    mqtt::Ack { packet_id: number(id), reason: ReasonCode(reason), reason_string: None, user }
}

fn number(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("a packet identifier is not 0")
}
