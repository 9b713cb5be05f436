//! rumqttc, a client we did not write: 3.1.1 and 5.0, over TCP and WebSocket. (Others are in `tests/interop/`.)

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{self, PublishProperties};
use rumqttc::{QoS, Transport};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wigwag::{Config, Running, Server};

const PATIENCE: Duration = Duration::from_secs(10);

/// More than rumqttc takes without being told.
const PACKET_MAX: u32 = 64 * 1024;

/// An SDP offer with many candidates has about that.
const OFFER: usize = 20 * 1024;

async fn server() -> Running {
    let mut config = Config::default();
    config.http.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.mqtt.listen = config.http.listen.clone();
    Server::builder().config(config).start().await.expect("two free ports")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V5,
}

#[derive(Debug, Clone, Copy)]
enum Via {
    Tcp,
    WebSocket,
}

const EVERY_WAY: [(Version, Via); 4] =
    [(Version::V4, Via::Tcp), (Version::V4, Via::WebSocket), (Version::V5, Via::Tcp), (Version::V5, Via::WebSocket)];

/// What a client hears, alike in both versions.
#[derive(Debug, PartialEq)]
enum Heard {
    Connected {
        session_present: bool,
    },
    Subscribed,
    /// PUBACK or PUBCOMP.
    Acknowledged,
    Message(Message),
}

#[derive(Debug, PartialEq)]
struct Message {
    topic: String,
    qos: QoS,
    payload: Vec<u8>,
    properties: Option<PublishProperties>,
}

/// A rumqttc client whose event loop runs in a task, until it is dropped: then its connection is cut.
struct Client {
    requests: Requests,
    heard: UnboundedReceiver<Heard>,
    events: JoinHandle<()>,
}

enum Requests {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Client {
    /// Connects, to a session that outlives its connection.
    async fn connect(server: &Running, (version, via): (Version, Via), id: &str, session_present: bool) -> Self {
        let (host, port, transport) = match via {
            Via::Tcp => ("127.0.0.1".to_owned(), server.addresses().mqtt[0].port(), Transport::Tcp),
            Via::WebSocket => {
                let address = server.addresses().http[0];
                (format!("ws://{address}/mqtt"), address.port(), Transport::Ws)
            }
        };
        let mut client = match version {
            Version::V4 => Self::connect_v4(rumqttc::MqttOptions::new(id, host, port), transport),
            Version::V5 => Self::connect_v5(rumqttc::v5::MqttOptions::new(id, host, port), transport),
        };
        assert_eq!(client.hear().await, Heard::Connected { session_present }, "{version:?} {via:?}");
        client
    }

    fn connect_v4(mut options: rumqttc::MqttOptions, transport: Transport) -> Self {
        let max = PACKET_MAX as usize;
        options.set_transport(transport).set_clean_session(false).set_max_packet_size(max, max);
        let (requests, mut events) = rumqttc::AsyncClient::new(options, 10);
        let (tell, heard) = unbounded_channel();
        let events = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Some(heard) = heard_v4(event) {
                    let _ = tell.send(heard); // nobody listens to a client at its end
                }
            }
        });
        Self { requests: Requests::V4(requests), heard, events }
    }

    fn connect_v5(mut options: rumqttc::v5::MqttOptions, transport: Transport) -> Self {
        options.set_transport(transport).set_clean_start(false);
        options.set_session_expiry_interval(Some(60)).set_max_packet_size(Some(PACKET_MAX));
        let (requests, mut events) = rumqttc::v5::AsyncClient::new(options, 10);
        let (tell, heard) = unbounded_channel();
        let events = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Some(heard) = heard_v5(event) {
                    let _ = tell.send(heard);
                }
            }
        });
        Self { requests: Requests::V5(requests), heard, events }
    }

    async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("in time").expect("the connection holds")
    }

    async fn subscribe(&mut self, filter: &str) {
        match &self.requests {
            Requests::V4(client) => client.subscribe(filter, QoS::ExactlyOnce).await.expect("a request"),
            Requests::V5(client) => client.subscribe(filter, QoS5::ExactlyOnce).await.expect("a request"),
        }
        assert_eq!(self.hear().await, Heard::Subscribed);
    }

    /// Publishes, and waits until that is acknowledged where it is.
    async fn publish(&mut self, topic: &str, qos: QoS, payload: Vec<u8>) {
        match &self.requests {
            Requests::V4(client) => client.publish(topic, qos, false, payload).await.expect("a request"),
            Requests::V5(client) => client.publish(topic, qos5(qos), false, payload).await.expect("a request"),
        }
        if qos != QoS::AtMostOnce {
            assert_eq!(self.hear().await, Heard::Acknowledged);
        }
    }

    async fn message(&mut self) -> Message {
        match self.hear().await {
            Heard::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

fn heard_v4(event: rumqttc::Event) -> Option<Heard> {
    let rumqttc::Event::Incoming(packet) = event else { return None };
    match packet {
        v4::Packet::ConnAck(v4::ConnAck { session_present, .. }) => Some(Heard::Connected { session_present }),
        v4::Packet::SubAck(_) => Some(Heard::Subscribed),
        v4::Packet::PubAck(_) | v4::Packet::PubComp(_) => Some(Heard::Acknowledged),
        v4::Packet::Publish(v4::Publish { topic, qos, payload, .. }) => {
            Some(Heard::Message(Message { topic, qos, payload: payload.into(), properties: None }))
        }
        _ => None,
    }
}

fn heard_v5(event: rumqttc::v5::Event) -> Option<Heard> {
    let rumqttc::v5::Event::Incoming(packet) = event else { return None };
    match packet {
        v5::Packet::ConnAck(v5::ConnAck { session_present, .. }) => Some(Heard::Connected { session_present }),
        v5::Packet::SubAck(_) => Some(Heard::Subscribed),
        v5::Packet::PubAck(_) | v5::Packet::PubComp(_) => Some(Heard::Acknowledged),
        v5::Packet::Publish(v5::Publish { topic, qos, payload, properties, .. }) => {
            let topic = String::from_utf8(topic.into()).expect("a topic is UTF-8");
            let qos = rumqttc::qos(qos as u8).expect("0 to 2");
            Some(Heard::Message(Message { topic, qos, payload: payload.into(), properties }))
        }
        _ => None,
    }
}

fn qos5(qos: QoS) -> QoS5 {
    rumqttc::v5::mqttbytes::qos(qos as u8).expect("0 to 2")
}

#[tokio::test]
async fn twenty_kilobytes_at_every_qos() {
    let server = server().await;
    let payload: Vec<u8> = (0..=255).cycle().take(OFFER).collect();
    for (n, way) in EVERY_WAY.into_iter().enumerate() {
        let topic = format!("test/rumqttc/{n}");
        let mut receiver = Client::connect(&server, way, &format!("receiver-{n}"), false).await;
        let mut sender = Client::connect(&server, way, &format!("sender-{n}"), false).await;
        receiver.subscribe(&topic).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            sender.publish(&topic, qos, payload.clone()).await;
            let message = receiver.message().await;
            assert_eq!((message.topic.as_str(), message.qos), (topic.as_str(), qos), "{way:?}");
            assert_eq!(message.payload, payload, "{way:?}");
        }
    }
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_session_whose_connection_is_cut_misses_nothing() {
    let server = server().await;
    for (n, way) in EVERY_WAY.into_iter().enumerate() {
        let (topic, id) = (format!("test/rumqttc/{n}"), format!("phone-{n}"));
        let mut sender = Client::connect(&server, way, &format!("sender-{n}"), false).await;
        Client::connect(&server, way, &id, false).await.subscribe(&topic).await;
        let away: Vec<_> = (0..30_u8).map(|number| vec![number; 100]).collect();
        for payload in &away {
            sender.publish(&topic, QoS::AtLeastOnce, payload.clone()).await;
        }
        let mut back = Client::connect(&server, way, &id, true).await;
        for payload in away {
            assert_eq!(back.message().await.payload, payload, "{way:?}");
        }
    }
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    let server = server().await;
    let mut client = Client::connect(&server, (Version::V5, Via::WebSocket), "client", false).await;
    client.subscribe("test/rumqttc/properties").await;
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("application/json".into()),
        response_topic: Some("test/rumqttc/answer".into()),
        correlation_data: Some(vec![0, 255].into()),
        user_properties: [("b", "1"), ("a", "2"), ("b", "3")].map(|(k, v)| (k.into(), v.into())).into(),
        ..PublishProperties::default()
    };
    let Requests::V5(requests) = &client.requests else { unreachable!("asked for above") };
    let topic = "test/rumqttc/properties";
    requests.publish_with_properties(topic, QoS5::AtMostOnce, false, "{}", sent.clone()).await.expect("a request");
    let mut got = client.message().await.properties.expect("5.0 has them");
    got.user_properties.retain(|(name, _)| name != "username"); // the server's own
    assert_eq!(got, sent);
    server.shutdown(PATIENCE).await;
}
