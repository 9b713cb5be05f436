//! Whole connections over pipes: bytes in, packets out.

use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::{
    config::{AbuseConfig, PresenceConfig, RateConfig, RoomsConfig},
    hub::{Hub, HubLimits, KeptLimits},
    policy::{grants::Grants, rate::Throttles, strikes::Strikes},
    room::Rooms,
    session::{
        QueueLimits, Stream,
        accept::{Incoming, accept},
        edge::{Edge, EdgeLimits},
        testing::{packets, policy, whole_packets},
    },
    wire::mqtt::{Packet, QoS, Version},
};

const QUEUE: usize = 40;

fn edge() -> Arc<Edge> {
    let limits = HubLimits {
        queue: QueueLimits { messages: QUEUE, own: QUEUE, bytes: 1 << 20 },
        subscriptions: 10,
        sessions: KeptLimits { all: 10, per_user: 10, per_address: 10 },
        retained_messages: 10,
        retained_bytes: 1000,
        write_timeout: Duration::from_secs(10),
    };
    let frames = ws::Limits { frame: 1 << 16, message: u32::MAX };
    let edge_limits = EdgeLimits {
        connections: 10,
        connections_per_address: 10,
        connect_timeout: Duration::from_secs(10),
        packet_before_connect: 1000,
        inlet: InletLimits { packet: 1 << 16, frames },
        user_properties: 10,
        inflight: 4,
        topic_aliases: 0,
        keep_alive_max: None,
        expiry_v311: 60,
        expiry_max: 60,
        lost: Duration::from_secs(20),
    };
    let rooms = Rooms::new(RoomsConfig::default(), &PresenceConfig::default());
    let hub = Arc::new(Hub::new(limits, policy(), rooms, "node", Arc::default()));
    let (throttles, strikes) = (Throttles::new(RateConfig::unlimited()), Strikes::new(AbuseConfig::default()));
    Arc::new(Edge::new(hub, edge_limits, throttles, strikes))
}

/// The other end of a connection.
struct Client {
    pipe: DuplexStream,
    version: Version,
    received: Vec<u8>,
}

impl Client {
    /// Connects with an empty property list where there are any, and reads the CONNACK.
    async fn connect(edge: &Arc<Edge>, version: Version, client_id: &str) -> Self {
        let mut client = Self::say_connect(edge, version, client_id, b"").await;
        assert_eq!(client.until(|packet| matches!(packet, Packet::ConnAck(_))).await, 1);
        client
    }

    /// The same without waiting, and with more behind it in one piece.
    async fn say_connect(edge: &Arc<Edge>, version: Version, client_id: &str, behind: &[u8]) -> Self {
        let (pipe, far) = tokio::io::duplex(1 << 20);
        let remote: SocketAddr = ([127, 0, 0, 1], 1).into();
        let slot = edge.slot(remote).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = Stream::Other(Box::new(far));
        let incoming = Incoming { stream, websocket: false, early: Vec::new(), slot, deadline };
        tokio::spawn(accept(Arc::clone(edge), incoming));
        let mut client = Self { pipe, version, received: Vec::new() };
        let (level, properties) = match version {
            Version::V311 => (4, &b""[..]),
            Version::V5 => (5, &b"\0"[..]),
        };
        let id = [&[0, client_id.len() as u8], client_id.as_bytes()].concat();
        let body = [&b"\0\x04MQTT"[..], &[level, 0x02, 0, 0], properties, &id].concat();
        client.say(&[&[0x10, body.len() as u8], &body[..], behind].concat()).await;
        client
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.unwrap();
    }

    /// Reads until a packet is as wanted or the stream ends, and says how many packets that took.
    async fn until(&mut self, wanted: impl Fn(&Packet<'_>) -> bool) -> usize {
        self.received.clear();
        loop {
            let read = tokio::time::timeout(Duration::from_secs(10), self.pipe.read_buf(&mut self.received)).await;
            let ended =
                read.unwrap_or_else(|_| panic!("nothing comes behind {} bytes", self.received.len())).unwrap() == 0;
            let (packets, _) = whole_packets(&self.received, self.version);
            if ended || packets.iter().any(&wanted) {
                return packets.len();
            }
        }
    }

    async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let properties = if self.version == Version::V5 { &b"\0"[..] } else { b"" };
        let filter = [&[0, filter.len() as u8], filter.as_bytes(), &[qos as u8]].concat();
        let body = [&[0, 1], properties, &filter].concat();
        self.say(&[&[0x82, body.len() as u8], &body[..]].concat()).await;
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }
}

#[tokio::test]
async fn more_messages_in_one_read_than_a_queue_holds_reach_a_client_that_reads_them() {
    let edge = edge();
    let mut receiver = Client::connect(&edge, Version::V311, "receiver").await;
    receiver.subscribe("t", QoS::AtMostOnce).await;
    let mut sender = Client::connect(&edge, Version::V311, "sender").await;
    sender.subscribe("t", QoS::AtMostOnce).await;
    let burst = [b"\x30\x04\0\x01t.".repeat(20 * QUEUE), b"\x30\x04\0\x01t!".to_vec()].concat();
    sender.say(&burst).await;
    let last = |packet: &Packet<'_>| matches!(packet, Packet::Publish(publish) if publish.payload == b"!");
    assert_eq!(receiver.until(last).await, 20 * QUEUE + 1);
    assert_eq!(sender.until(last).await, 20 * QUEUE + 1, "also where that is its own");
}

/// One thread serves all, and the order of what happens on it is the test.
#[tokio::test]
async fn a_read_that_is_for_very_many_is_handled_in_turns_with_others_between() {
    for with_connect in [false, true] {
        // In a task as all the others are.
        tokio::spawn(flood_for_very_many(with_connect)).await.unwrap();
    }
}

async fn flood_for_very_many(with_connect: bool) {
    const MESSAGES: u8 = 200;
    let edge = edge();
    let mut receiver = Client::connect(&edge, Version::V311, "receiver").await;
    receiver.subscribe("t", QoS::AtMostOnce).await;
    let inside = |filter: &str| {
        let client = crate::client::Client::new(Arc::clone(&edge.hub), "inside", Grants::all()).unwrap();
        client.subscribe(filter, QoS::AtMostOnce).unwrap();
        client
    };
    let crowd: Vec<_> = (1..DELIVERIES / 8).map(|_| inside("t")).collect();
    let mut last = inside("last");
    let mut other = Client::connect(&edge, Version::V311, "other").await;
    let mut flood: Vec<_> = (0..MESSAGES).flat_map(|number| [0x30, 4, 0, 1, b't', number]).collect();
    flood.extend(b"\xC0\0\x30\x06\0\x04last");
    let mut sender = if with_connect {
        Client::say_connect(&edge, Version::V311, "sender", &flood).await
    } else {
        let mut sender = Client::connect(&edge, Version::V311, "sender").await;
        sender.say(&flood).await;
        sender
    };
    for ping in 0..5 {
        other.say(b"\xC0\0").await;
        other.until(|packet| matches!(packet, Packet::PingResp)).await;
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(last.poll_recv(cx).is_pending(), "all of it was routed before ping {ping}");
    }
    sender.until(|packet| matches!(packet, Packet::PingResp)).await;
    assert_eq!(last.recv().await.map(|received| received.topic().to_owned()), Some("last".into()));
    receiver.until(|packet| matches!(packet, Packet::Publish(publish) if publish.payload == [MESSAGES - 1])).await;
    let received = packets(&receiver.received, Version::V311);
    let numbers = received.iter().map(|packet| match packet {
        Packet::Publish(publish) => publish.payload[0],
        other => panic!("{other:?}"),
    });
    assert!(numbers.eq(0..MESSAGES), "in order, and each once");
    drop(crowd);
}

/// [MQTT-3.3.4-7] is for who was told of a Receive Maximum.
#[tokio::test]
async fn a_3_1_1_client_may_have_any_number_of_qos_2_messages_under_way() {
    for (version, allowed) in [(Version::V311, true), (Version::V5, false)] {
        let edge = edge();
        let mut sender = Client::connect(&edge, version, "sender").await;
        let mut burst = Vec::new();
        for packet_id in 1..=20 {
            match version {
                Version::V311 => burst.extend([0x34, 5, 0, 1, b't', 0, packet_id]),
                Version::V5 => burst.extend([0x34, 6, 0, 1, b't', 0, packet_id, 0]),
            }
        }
        sender.say(&burst).await;
        let end = |packet: &Packet<'_>| match packet {
            Packet::PubRec(ack) => ack.packet_id.get() == 20,
            Packet::Disconnect(disconnect) => disconnect.reason == ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
            _ => false,
        };
        sender.until(end).await;
        let answers = packets(&sender.received, version);
        assert_eq!(matches!(answers.last(), Some(Packet::PubRec(_))), allowed);
    }
}

/// [MQTT-4.13.1-1], [MQTT-3.14.4-1], [MQTT-3.14.4-2]
#[tokio::test]
async fn a_protocol_error_is_answered_by_a_disconnect_behind_everything_else() {
    let edge = edge();
    let mut client = Client::connect(&edge, Version::V5, "client").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.say(b"\x30\x05\0\x01t\0.\xC0\0\x10\0").await;
    client.until(|_| false).await;
    let answers = packets(&client.received, Version::V5);
    let [Packet::PingResp, Packet::Publish(_), Packet::Disconnect(_)] = &answers[..] else { panic!("{answers:?}") };
}

/// [MQTT-3.1.4-3], [MQTT-3.1.4-4]
#[tokio::test]
async fn who_is_replaced_reads_why_even_with_bytes_of_its_own_under_way() {
    let edge = edge();
    let mut first = Client::connect(&edge, Version::V5, "client").await;
    let mut second = Client::connect(&edge, Version::V5, "client").await;
    let _ = first.pipe.write_all(b"\xC0\0").await;
    first.until(|_| false).await;
    let [Packet::Disconnect(told)] = &packets(&first.received, Version::V5)[..] else { panic!("{:?}", first.received) };
    assert_eq!(told.reason, ReasonCode::SESSION_TAKEN_OVER);
    second.say(b"\xC0\0").await;
    assert_eq!(second.until(|packet| matches!(packet, Packet::PingResp)).await, 1);
}

#[tokio::test]
async fn when_everybody_has_gone_nothing_is_left() {
    let edge = edge();
    let mut client = Client::connect(&edge, Version::V5, "client").await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    client.say(b"\xE0\0").await;
    client.until(|_| false).await;
    drop(client);
    while edge.sockets() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((edge.connected(), edge.hub.held()), (0, crate::hub::Held::default()));
}
