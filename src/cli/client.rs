//! A client of any MQTT broker: rumqttc's two protocol versions and four transports behind one face.
//!
//! A [`Link`] is one connection. It does not come back by itself: when it ends, the command ends and says why.

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use hyper::Uri;
use percent_encoding::percent_decode_str;
use rumqttc::v5::mqttbytes::v5 as packets5;
use rumqttc::{NetworkOptions, Outgoing, QoS, TlsConfiguration, Transport, v5};

use wigwag::wire::mqtt::{RECEIVED, SENDER};

use super::{Failure, tls};

/// The largest packet MQTT knows; rumqttc's own default is 10 KiB.
const PACKET_MAX: u32 = 256 << 20;

/// Requests between a command and the connection: there is never more than one at a time.
const REQUESTS: usize = 2;

#[derive(Args)]
pub struct ClientArgs {
    /// Broker: mqtt://, mqtts://, ws:// or wss://; with USER:PASSWORD@ in front of the host, if you like
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    url: String,

    /// User name
    #[arg(short, long)]
    user: Option<String>,

    /// Password, or token
    #[arg(short = 'P', long)]
    password: Option<String>,

    /// Client id [default: a random one]
    #[arg(short, long)]
    id: Option<String>,

    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(short = 'V', long, default_value = "5", value_name = "4|5")]
    #[arg(value_parser = clap::value_parser!(u8).range(4..=5))]
    mqtt_version: u8,

    /// PEM file of the authorities to trust [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    cafile: Option<PathBuf>,

    /// Trust any certificate, such as that of `wigwag serve --dev-tls`
    #[arg(long)]
    insecure: bool,
}

/// Reads `--qos`.
pub fn qos(text: &str) -> Result<QoS, &'static str> {
    text.parse().ok().and_then(|number| rumqttc::qos(number).ok()).ok_or("0, 1 or 2")
}

/// What a command hears of its connection.
pub enum Event {
    /// CONNACK.
    Connected,
    /// SUBACK: for each filter, why it was refused if it was.
    Subscribed(Vec<Option<String>>),
    /// PUBLISH.
    Message(Message),
    /// A PUBLISH of ours went out.
    Sent,
    /// A PUBLISH of ours is done (PUBACK, PUBCOMP), or was refused and why.
    Acknowledged(Result<(), String>),
    /// Our DISCONNECT went out.
    Disconnected,
}

/// A message that came.
pub struct Message {
    pub topic: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    /// Who published it, where the broker says so.
    pub sender: Option<String>,
    /// When the broker received it, where that says so: RFC 3339.
    pub received: Option<String>,
}

/// One connection to a broker.
pub struct Link {
    url: String,
    version: Version,
    connected: bool,
}

enum Version {
    V4(rumqttc::AsyncClient, Box<rumqttc::EventLoop>),
    V5(v5::AsyncClient, Box<v5::EventLoop>),
}

impl Link {
    /// Prepares a connection, which is made by the first [`Link::next`]. `role` begins a random client id.
    pub fn new(args: &ClientArgs, role: &str) -> Result<Self, Failure> {
        let Target { url, credentials, host, port, transport } = Target::parse(args)?;
        let (user, password) = match (&args.user, &args.password) {
            (None, None) => credentials.map_or((None, None), |(user, password)| (Some(user), password)),
            (user, password) => (user.clone(), password.clone()),
        };
        let id = args.id.clone().unwrap_or_else(|| format!("wigwag-{role}-{:016x}", RandomState::new().hash_one(role)));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let version = if args.mqtt_version == 4 {
            let mut options = rumqttc::MqttOptions::new(id, host, port);
            options.set_transport(transport).set_max_packet_size(PACKET_MAX as usize, PACKET_MAX as usize);
            match (user, password) {
                (Some(user), password) => {
                    options.set_credentials(user, password.unwrap_or_default());
                }
                // [MQTT-3.1.2-22]
                (None, Some(_)) => return Err(Failure::Usage("MQTT 3.1.1 takes no password without --user".into())),
                (None, None) => {}
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, REQUESTS);
            events.set_network_options(network);
            Version::V4(client, Box::new(events))
        } else {
            let mut options = v5::MqttOptions::new(id, host, port);
            options.set_transport(transport).set_max_packet_size(Some(PACKET_MAX));
            // The default reserves room for 65,535 messages in flight.
            options.set_outgoing_inflight_upper_limit(1).set_network_options(network);
            if user.is_some() || password.is_some() {
                options.set_credentials(user.unwrap_or_default(), password.unwrap_or_default());
            }
            let (client, events) = v5::AsyncClient::new(options, REQUESTS);
            Version::V5(client, Box::new(events))
        };
        Ok(Self { url, version, connected: false })
    }

    /// The next event of interest.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let event = match &mut self.version {
                Version::V4(_, events) => events.poll().await.map(event_of_v4).map_err(|error| explain(&error)),
                Version::V5(_, events) => events.poll().await.map(event_of_v5).map_err(|error| explain(&error)),
            };
            let event = event.map_err(|reason| Failure::Runtime(format!("{}: {reason}", self.url)))?;
            self.connected |= matches!(event, Some(Event::Connected));
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    pub async fn publish(&self, topic: &str, qos: QoS, retain: bool, payload: Vec<u8>) -> Result<(), Failure> {
        match &self.version {
            Version::V4(client, _) => client.publish(topic, qos, retain, payload).await.map_err(request_failed),
            Version::V5(client, _) => {
                client.publish(topic, qos_of_v5(qos), retain, payload).await.map_err(request_failed)
            }
        }
    }

    pub async fn subscribe(&self, filters: &[String], qos: QoS) -> Result<(), Failure> {
        let filters = filters.iter().cloned();
        match &self.version {
            Version::V4(client, _) => {
                let filters = filters.map(|filter| rumqttc::SubscribeFilter::new(filter, qos));
                client.subscribe_many(filters).await.map_err(request_failed)
            }
            Version::V5(client, _) => {
                let filters = filters.map(|filter| packets5::Filter::new(filter, qos_of_v5(qos)));
                client.subscribe_many(filters).await.map_err(request_failed)
            }
        }
    }

    /// Says goodbye properly, if there is somebody to say it to. What arrives meanwhile is dropped.
    pub async fn disconnect(mut self) -> Result<(), Failure> {
        if !self.connected {
            return Err(Failure::Runtime(format!("{}: no connection yet", self.url)));
        }
        match &self.version {
            Version::V4(client, _) => client.disconnect().await.map_err(request_failed)?,
            Version::V5(client, _) => client.disconnect().await.map_err(request_failed)?,
        }
        while !matches!(self.next().await?, Event::Disconnected) {}
        Ok(())
    }
}

fn qos_of_v5(qos: QoS) -> v5::mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
        QoS::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
    }
}

/// Where to connect, in rumqttc's terms: for WebSockets `host` is the whole URL.
struct Target {
    /// Without credentials, to be shown.
    url: String,
    credentials: Option<(String, Option<String>)>,
    host: String,
    port: u16,
    transport: Transport,
}

impl Target {
    fn parse(args: &ClientArgs) -> Result<Self, Failure> {
        let (url, credentials) = without_credentials(&args.url);
        let wrong = |reason: &str| Failure::Usage(format!("--url {url}: {reason}"));
        let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("a URL looks like mqtt://127.0.0.1:1883 or ws://127.0.0.1:8080/mqtt"));
        };
        let tls = || {
            let config = tls::client_config(args.cafile.as_deref(), args.insecure)?;
            Ok(TlsConfiguration::Rustls(Arc::new(config)))
        };
        let (transport, port) = match scheme {
            "mqtt" => (Transport::Tcp, 1883),
            "mqtts" => (Transport::Tls(tls()?), 8883),
            "ws" => (Transport::Ws, 80),
            "wss" => (Transport::Wss(tls()?), 443),
            _ => return Err(wrong("known are mqtt://, mqtts://, ws:// and wss://")),
        };
        let host = match scheme {
            "ws" | "wss" if uri.path() == "/" => format!("{scheme}://{authority}/mqtt"),
            "ws" | "wss" => url.clone(),
            _ => authority.host().to_owned(),
        };
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { url, credentials, host, port, transport })
    }
}

/// Takes `user:password@`, percent-encoded, out of a URL (RFC 3986 3.2.1).
fn without_credentials(url: &str) -> (String, Option<(String, Option<String>)>) {
    let none = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else { return none() };
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let Some((said, host)) = authority.rsplit_once('@') else { return none() };
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = match said.split_once(':') {
        Some((user, password)) => (plain(user), Some(plain(password))),
        None => (plain(said), None),
    };
    (format!("{scheme}://{host}{}", &rest[authority.len()..]), Some((user, password)))
}

fn event_of_v4(event: rumqttc::Event) -> Option<Event> {
    use rumqttc::{Packet, SubscribeReasonCode};
    Some(match event {
        rumqttc::Event::Incoming(Packet::ConnAck(_)) => Event::Connected,
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            let refused = |code: &_| matches!(code, SubscribeReasonCode::Failure).then(|| "Failure".to_owned());
            Event::Subscribed(ack.return_codes.iter().map(refused).collect())
        }
        rumqttc::Event::Incoming(Packet::Publish(publish)) => {
            let (qos, retain) = (publish.qos as u8, publish.retain);
            let (topic, payload) = (publish.topic.into(), publish.payload);
            Event::Message(Message { topic, payload, qos, retain, sender: None, received: None })
        }
        rumqttc::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Event::Acknowledged(Ok(())),
        rumqttc::Event::Outgoing(outgoing) => return event_of_outgoing(&outgoing),
        rumqttc::Event::Incoming(_) => return None,
    })
}

fn event_of_v5(event: v5::Event) -> Option<Event> {
    use packets5::{Packet, PubAckReason, PubRecReason, SubscribeReasonCode};
    Some(match event {
        v5::Event::Incoming(Packet::ConnAck(_)) => Event::Connected,
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let said = ack.properties.and_then(|properties| properties.reason_string);
            let refused = |code: &_| match code {
                SubscribeReasonCode::Success(_) => None,
                code => Some(reason(code, said.as_deref())),
            };
            Event::Subscribed(ack.return_codes.iter().map(refused).collect())
        }
        v5::Event::Incoming(Packet::Publish(publish)) => {
            let user = publish.properties.map(|properties| properties.user_properties).unwrap_or_default();
            // The broker's own stands behind those of the sender.
            let last = |key| user.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
            let (qos, retain, sender, received) = (publish.qos as u8, publish.retain, last(SENDER), last(RECEIVED));
            Event::Message(Message { topic: publish.topic, payload: publish.payload, qos, retain, sender, received })
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => Event::Acknowledged(match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            code => Err(reason(&code, ack.properties.and_then(|properties| properties.reason_string).as_deref())),
        }),
        v5::Event::Incoming(Packet::PubRec(ack)) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => return None,
            code => {
                let said = ack.properties.and_then(|properties| properties.reason_string);
                Event::Acknowledged(Err(reason(&code, said.as_deref())))
            }
        },
        v5::Event::Incoming(Packet::PubComp(_)) => Event::Acknowledged(Ok(())),
        v5::Event::Outgoing(outgoing) => return event_of_outgoing(&outgoing),
        v5::Event::Incoming(_) => return None,
    })
}

fn event_of_outgoing(outgoing: &Outgoing) -> Option<Event> {
    match outgoing {
        Outgoing::Publish(_) => Some(Event::Sent),
        Outgoing::Disconnect => Some(Event::Disconnected),
        _ => None,
    }
}

/// A reason code and what the broker said to it.
fn reason(code: &impl fmt::Debug, said: Option<&str>) -> String {
    match said {
        Some(said) => format!("{code:?} ({})", super::terminal::escape(said.as_bytes())),
        None => format!("{code:?}"),
    }
}

/// An error with its causes, which rumqttc does not always print.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{} {cause_text}", text.trim_end_matches([':', ' ']).to_owned() + ":");
        }
        source = cause.source();
    }
    super::terminal::escape(text.as_bytes())
}

/// rumqttc accepts a request unless the topic is invalid, which the commands check before.
fn request_failed(error: impl Error) -> Failure {
    Failure::Runtime(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn credentials_in_a_url_are_taken_and_not_shown() {
        let some = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
        let table = [
            ("mqtt://host:1884", "mqtt://host:1884", None),
            ("mqtt://wigwag:a%40b:c@host:1884", "mqtt://host:1884", some("wigwag", Some("a@b:c"))),
            ("ws://alice@[::1]:80/mqtt?a@b", "ws://[::1]:80/mqtt?a@b", some("alice", None)),
            ("ws://host/a@b", "ws://host/a@b", None),
            ("no url", "no url", None),
        ];
        for (url, shown, credentials) in table {
            assert_eq!(without_credentials(url), (shown.to_owned(), credentials), "{url}");
        }
    }
}
