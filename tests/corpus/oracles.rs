//! What codecs that others wrote say of the same bytes, and where we know better.
//!
//! Two findings have to be explained: an acceptance that another codec does not share, and a refusal that none of
//! them shares. Both lists below name the clause or the packet, and why.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as core_311, v5_0 as core_5};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use rmqtt_codec::{v3 as rmqtt_311, v5 as rmqtt_5};
use rumqttc::mqttbytes as rumqttc_311;
use rumqttc::v5::mqttbytes as rumqttc_5;
use tokio_util::codec::{Decoder, Encoder};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};
use wigwag::wire::mqtt::{Connect, DecodeError, Packet, Version, decode};
use wigwag::wire::ws::{Event, Limits};

use super::checks::Deframed;
use super::corpus::MAX_PACKET;

/// Clauses whose breach nobody else sees.
const ALONE: [(&[&str], &str); 8] = [
    (&["MQTT-1.5.3-2", "MQTT-1.5.4-2"], "nobody looks for U+0000"),
    (&["MQTT-1.5.5-1"], "nobody minds a longer encoding; its bound is kept by all"),
    (&["MQTT-3.3.1-2"], "nobody minds DUP at QoS 0"),
    (&["MQTT-3.2.2-4", "MQTT-3.2.2-6"], "nobody compares Session Present with the reason"),
    (
        &["MQTT-3.3.2-2", "MQTT-3.3.2-14", "MQTT-4.7.0-1", "MQTT-4.7.3-1", "3.3.2.1"],
        "topic names are left to the broker, empty ones and wildcards too",
    ),
    (
        &["MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.8.2-1", "MQTT-4.8.2-2"],
        "topic filters are left to the broker",
    ),
    (&["MQTT-3.8.3-4"], "reserved bits of 3.1.1, and No Local on a shared subscription of 5.0, pass everywhere"),
    (&["3.1.2.11.10", "3.2.2.3.18"], "nobody asks for the method that belongs to the data"),
];

/// Legal packets that others refuse: codec, what it says, packet, why.
const REFUSED: [(&str, &str, &str, &str); 7] = [
    (
        "rmqtt-codec",
        "InvalidClientId",
        "Connect",
        "wants Clean Start beside an empty client id, which is the server's answer to give",
    ),
    ("rmqtt-codec", "MalformedPacket", "Publish", "wants a Message Expiry Interval other than 0"),
    ("rmqtt-codec", "MalformedPacket", "Connect", "wants a will's Message Expiry Interval other than 0"),
    ("mqtt-protocol-core", "ProtocolError", "Connect", "wants a user name beside a password, as 3.1.1 did"),
    ("rumqttc", "TopicNotUtf8", "Connect", "wants a password of UTF-8"),
    ("rumqttc", "InvalidPacketType(15)", "Auth", "does not read AUTH"),
    ("rumqttc", "PayloadRequired", "Disconnect", "wants a reason in a DISCONNECT of 5.0"),
];

/// What one codec makes of one packet.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepts,
    Refuses(String),
    /// Incomplete, or the codec panicked.
    Silent,
}

/// The findings that nothing explains, each with its first example.
#[derive(Default)]
pub struct Findings(BTreeMap<String, String>);

impl Findings {
    /// Asks everybody about the bytes that we have judged.
    pub fn judge(&mut self, bytes: &[u8], version: Version, ours: &Result<Option<(Packet<'_>, usize)>, DecodeError>) {
        match ours {
            Ok(None) => {}
            Ok(Some((packet, len))) => self.accepted(&bytes[..*len], version, packet),
            Err(error) => self.refused(bytes, version, error),
        }
    }

    fn accepted(&mut self, bytes: &[u8], version: Version, packet: &Packet<'_>) {
        // Another codec is asked for the version that a CONNECT itself says.
        let version = if let Packet::Connect(Connect { version, .. }) = packet { *version } else { version };
        let name = format!("{packet:?}");
        let name = name.split('(').next().unwrap_or_default();
        for (codec, verdict) in verdicts(bytes, version) {
            let Verdict::Refuses(error) = verdict else { continue };
            if !REFUSED.iter().any(|row| (row.0, row.1, row.2) == (codec, error.as_str(), name)) {
                self.add(format!("{codec} refuses a legal {name} of {version:?}: {error}"), bytes);
            }
        }
        if !reads_alike(bytes, version, packet) {
            self.add(format!("rmqtt-codec reads another {name} of {version:?}"), bytes);
        }
    }

    fn refused(&mut self, bytes: &[u8], version: Version, error: &DecodeError) {
        let verdicts = verdicts(bytes, version).map(|(_, verdict)| verdict);
        let shared = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refuses(_)));
        let explained = ALONE.iter().any(|(clauses, _)| clauses.contains(&error.clause));
        if !shared && !explained && verdicts.contains(&Verdict::Accepts) {
            self.add(format!("nobody else refuses in {version:?}: {error}"), bytes);
        }
    }

    fn add(&mut self, finding: String, bytes: &[u8]) {
        self.0.entry(finding).or_insert_with(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    }

    /// # Panics
    /// If anything was found.
    pub fn report(self) {
        let lines: Vec<String> = self.0.iter().map(|(finding, example)| format!("{finding}: {example}")).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}

fn verdicts(bytes: &[u8], version: Version) -> [(&'static str, Verdict); 3] {
    [
        ("rmqtt-codec", rmqtt(bytes, version)),
        ("mqtt-protocol-core", core(bytes, version)),
        ("rumqttc", rumqttc(bytes, version)),
    ]
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs somebody else's code, whose panics are no finding of ours and say nothing.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run)).ok();
    QUIET.set(false);
    result
}

fn verdict<E: std::fmt::Debug>(result: Option<Result<bool, E>>) -> Verdict {
    match result {
        Some(Ok(true)) => Verdict::Accepts,
        Some(Err(error)) => Verdict::Refuses(format!("{error:?}")),
        Some(Ok(false)) | None => Verdict::Silent,
    }
}

fn rmqtt(bytes: &[u8], version: Version) -> Verdict {
    verdict(guarded(|| {
        let mut bytes = BytesMut::from(bytes);
        match version {
            Version::V311 => rmqtt_311::Codec::new(MAX_PACKET as u32).decode(&mut bytes).map(|packet| packet.is_some()),
            Version::V5 => rmqtt_5::Codec::new(MAX_PACKET as u32, 0).decode(&mut bytes).map(|packet| packet.is_some()),
        }
    }))
}

fn rumqttc(bytes: &[u8], version: Version) -> Verdict {
    let mut bytes = BytesMut::from(bytes);
    match version {
        Version::V311 => verdict(guarded(|| match rumqttc_311::v4::Packet::read(&mut bytes, MAX_PACKET) {
            Err(rumqttc_311::Error::InsufficientBytes(_)) => Ok(false),
            read => read.map(|_| true),
        })),
        Version::V5 => verdict(guarded(|| match rumqttc_5::v5::Packet::read(&mut bytes, Some(MAX_PACKET as u32)) {
            Err(rumqttc_5::Error::InsufficientBytes(_)) => Ok(false),
            read => read.map(|_| true),
        })),
    }
}

/// This one parses bodies: the fixed header is read for it, and its flags are judged by nobody.
fn core(bytes: &[u8], version: Version) -> Verdict {
    let len = bytes.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let Some(length) = bytes.get(1..=len).filter(|_| len <= 4) else { return Verdict::Silent };
    let announced = length.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
    let Some(body) = bytes[1 + len..].get(..announced) else { return Verdict::Silent };
    macro_rules! parse {
        ($packet:ty) => {
            match <$packet>::parse(body) {
                Ok((_, read)) if read < body.len() => Err(MqttError::MalformedPacket),
                parsed => parsed.map(|_| true),
            }
        };
    }
    let flags = bytes[0] & 0x0F;
    verdict(guarded(|| match (version, bytes[0] >> 4) {
        (Version::V311, 1) => parse!(core_311::Connect),
        (Version::V311, 2) => parse!(core_311::Connack),
        (Version::V311, 3) => core_311::Publish::parse(flags, body.into()).map(|_| true),
        (Version::V311, 4) => parse!(core_311::Puback),
        (Version::V311, 5) => parse!(core_311::Pubrec),
        (Version::V311, 6) => parse!(core_311::Pubrel),
        (Version::V311, 7) => parse!(core_311::Pubcomp),
        (Version::V311, 8) => parse!(core_311::Subscribe),
        (Version::V311, 9) => parse!(core_311::Suback),
        (Version::V311, 10) => parse!(core_311::Unsubscribe),
        (Version::V311, 11) => parse!(core_311::Unsuback),
        (Version::V311, 12) => parse!(core_311::Pingreq),
        (Version::V311, 13) => parse!(core_311::Pingresp),
        (Version::V311, 14) => parse!(core_311::Disconnect),
        (Version::V5, 1) => parse!(core_5::Connect),
        (Version::V5, 2) => parse!(core_5::Connack),
        (Version::V5, 3) => core_5::Publish::parse(flags, body.into()).map(|_| true),
        (Version::V5, 4) => parse!(core_5::Puback),
        (Version::V5, 5) => parse!(core_5::Pubrec),
        (Version::V5, 6) => parse!(core_5::Pubrel),
        (Version::V5, 7) => parse!(core_5::Pubcomp),
        (Version::V5, 8) => parse!(core_5::Subscribe),
        (Version::V5, 9) => parse!(core_5::Suback),
        (Version::V5, 10) => parse!(core_5::Unsubscribe),
        (Version::V5, 11) => parse!(core_5::Unsuback),
        (Version::V5, 12) => parse!(core_5::Pingreq),
        (Version::V5, 13) => parse!(core_5::Pingresp),
        (Version::V5, 14) => parse!(core_5::Disconnect),
        (Version::V5, 15) => parse!(core_5::Auth),
        _ => Ok(false),
    }))
}

/// Whether rmqtt-codec reads the same in the packet: what it writes is what we read. Nothing is said where it does
/// not accept the packet, or leaves out what is not said by default.
fn reads_alike(bytes: &[u8], version: Version, ours: &Packet<'_>) -> bool {
    match ours {
        Packet::ConnAck(_) | Packet::Auth(_) => return true,
        Packet::Publish(publish) if publish.properties.payload_is_utf8 == Some(false) => return true,
        _ => {}
    }
    let theirs = guarded(|| {
        let (mut bytes, mut again) = (BytesMut::from(bytes), BytesMut::new());
        match version {
            Version::V311 => {
                let (packet, _) = rmqtt_311::Codec::new(MAX_PACKET as u32).decode(&mut bytes).ok()??;
                rmqtt_311::Codec::new(0).encode(packet, &mut again).ok()?;
            }
            Version::V5 => {
                let (packet, _) = rmqtt_5::Codec::new(MAX_PACKET as u32, 0).decode(&mut bytes).ok()??;
                rmqtt_5::Codec::new(0, 0).encode(packet, &mut again).ok()?;
            }
        }
        Some(again)
    });
    match theirs.flatten() {
        Some(theirs) => decode(&theirs, version, usize::MAX) == Ok(Some((ours.clone(), theirs.len()))),
        None => true,
    }
}

/// A stream that was received, and nowhere to answer.
struct Received<'s>(&'s [u8]);

impl Read for Received<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Received<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of a client's stream: whole messages only.
#[derive(Default)]
struct Messages {
    payload: Vec<u8>,
    pings: usize,
    refused: bool,
}

fn tungstenite(stream: &[u8], limits: Limits) -> Messages {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(limits.frame as usize))
        .max_message_size(Some(limits.message as usize));
    let mut socket = WebSocket::from_raw_socket(Received(stream), tungstenite::protocol::Role::Server, Some(config));
    let mut out = Messages::default();
    loop {
        match socket.read() {
            Ok(Message::Binary(payload)) => out.payload.extend_from_slice(&payload),
            Ok(Message::Ping(_)) => out.pings += 1,
            Ok(Message::Close(close)) => {
                // It answers a bad close code with one of its own instead of failing, and it reads on, which is not
                // for us: what follows a close frame is discarded (RFC 6455 1.4).
                out.refused = close.is_some_and(|close| close.reason == "Protocol violation");
                return out;
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return out,
            Err(_) => {
                out.refused = true;
                return out;
            }
        }
    }
}

/// What we refuse in a frame and tungstenite does not: it has nothing against text, and does not ask for the shortest
/// length.
const TUNGSTENITE_ACCEPTS: [&str; 2] = ["a text frame", "a payload length in more bytes than it takes"];

/// How much of a stream tungstenite can say: it looks at whole frames and yields whole messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Ends with a message, or in a whole frame that is refused.
    Complete,
    /// Ends inside a message, between frames.
    Open,
    /// Ends anywhere.
    Broken,
}

/// Compares with tungstenite.
///
/// # Panics
/// If it reads something else.
pub fn tungstenite_agrees(stream: &[u8], state: Stream, limits: Limits, ours: &Deframed) {
    let theirs = tungstenite(stream, limits);
    match ours.error {
        None => {
            // 1014, Bad Gateway, is registered but unknown to it.
            let registered = ours.events.contains(&Event::Close(Some(1014)));
            assert!(!theirs.refused || registered, "only tungstenite refuses {stream:02x?}");
            let pings = ours.events.iter().filter(|event| matches!(event, Event::Ping(_))).count();
            assert_eq!(pings, theirs.pings, "pings in {stream:02x?}");
            assert!(ours.payload.starts_with(&theirs.payload), "payload of {stream:02x?}");
            let tail = ours.payload.len() - theirs.payload.len();
            assert!(tail == 0 || state != Stream::Complete, "{tail} bytes more in {stream:02x?}");
        }
        Some(error) if TUNGSTENITE_ACCEPTS.contains(&error.what) || state == Stream::Broken => {}
        Some(error) => assert!(theirs.refused, "tungstenite accepts what is refused with {error}: {stream:02x?}"),
    }
}
