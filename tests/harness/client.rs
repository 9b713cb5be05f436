//! What a CONNECT says.

use std::num::{NonZeroU16, NonZeroU32};

use super::{Connection, Message, Transport, packets::encode_user};
use wigwag::wire::mqtt::{self, Packet, QoS, UserProperties, Version, encode};

/// A client that is to connect: by default over TCP, with a clean start, a keep alive of 60 seconds and no properties.
#[derive(Debug, Clone)]
pub struct Client {
    pub version: Version,
    pub transport: Transport,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub expiry: u32,
    pub receive_maximum: Option<u16>,
    pub maximum_packet: Option<u32>,
    pub alias_maximum: u16,
    pub problem_information: bool,
    pub response_information: bool,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Vec<u8>>,
    pub user: Vec<(String, String)>,
    pub user_name: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
}

/// A will: a message, and when it is sent.
#[derive(Debug, Clone)]
pub struct Will {
    pub message: Message,
    /// Will Delay Interval, seconds.
    pub delay: u32,
}

impl From<Message> for Will {
    fn from(message: Message) -> Self {
        Self { message, delay: 0 }
    }
}

impl Will {
    pub fn delayed(message: Message, delay: u32) -> Self {
        Self { message, delay }
    }
}

impl Client {
    pub fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            transport: Transport::Tcp,
            id: id.into(),
            clean: true,
            keep_alive: 60,
            expiry: 0,
            receive_maximum: None,
            maximum_packet: None,
            alias_maximum: 0,
            problem_information: true,
            response_information: false,
            authentication_method: None,
            authentication_data: None,
            user: Vec::new(),
            user_name: None,
            password: None,
            will: None,
        }
    }

    pub fn v5(id: &str) -> Self {
        Self::new(Version::V5, id)
    }

    pub fn v311(id: &str) -> Self {
        Self::new(Version::V311, id)
    }

    /// One whose session is kept, in the way of its version, and resumed if it is there.
    pub fn kept(version: Version, id: &str) -> Self {
        Self::new(version, id).clean(false).expiry(60)
    }

    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Clean Start, or Clean Session of 3.1.1.
    pub fn clean(self, clean: bool) -> Self {
        Self { clean, ..self }
    }

    /// Seconds.
    pub fn keep_alive(self, keep_alive: u16) -> Self {
        Self { keep_alive, ..self }
    }

    /// Session Expiry Interval, seconds.
    pub fn expiry(self, expiry: u32) -> Self {
        Self { expiry, ..self }
    }

    pub fn receive_maximum(self, maximum: u16) -> Self {
        Self { receive_maximum: Some(maximum), ..self }
    }

    /// Maximum Packet Size, bytes.
    pub fn maximum_packet(self, maximum: u32) -> Self {
        Self { maximum_packet: Some(maximum), ..self }
    }

    /// Topic Alias Maximum.
    pub fn aliases(self, alias_maximum: u16) -> Self {
        Self { alias_maximum, ..self }
    }

    /// Request Problem Information = 0.
    pub fn no_problem_information(self) -> Self {
        Self { problem_information: false, ..self }
    }

    /// Request Response Information = 1.
    pub fn response_information(self) -> Self {
        Self { response_information: true, ..self }
    }

    pub fn authentication_method(self, method: &str) -> Self {
        Self { authentication_method: Some(method.into()), ..self }
    }

    pub fn authentication_data(self, data: &[u8]) -> Self {
        Self { authentication_data: Some(data.into()), ..self }
    }

    pub fn user(mut self, key: &str, value: &str) -> Self {
        self.user.push((key.into(), value.into()));
        self
    }

    pub fn user_name(self, name: &str) -> Self {
        Self { user_name: Some(name.into()), ..self }
    }

    pub fn password(self, password: &[u8]) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    pub fn will(self, will: impl Into<Will>) -> Self {
        Self { will: Some(will.into()), ..self }
    }

    /// The CONNECT.
    pub fn encode(&self) -> Vec<u8> {
        let user = encode_user(&self.user);
        let will_user = self.will.as_ref().map(|will| encode_user(&will.message.user)).unwrap_or_default();
        let will = self.will.as_ref().map(|will| mqtt::Will {
            qos: QoS::from_bits(will.message.qos).expect("a QoS"),
            retain: will.message.retain,
            topic: &will.message.topic,
            payload: &will.message.payload,
            delay: will.delay,
            properties: will.message.properties(&will_user),
        });
        let properties = mqtt::ConnectProperties {
            session_expiry: self.expiry,
            receive_maximum: self.receive_maximum.map_or(NonZeroU16::MAX, |max| NonZeroU16::new(max).expect("not 0")),
            maximum_packet_size: self.maximum_packet.and_then(NonZeroU32::new),
            topic_alias_maximum: self.alias_maximum,
            request_problem_information: self.problem_information,
            request_response_information: self.response_information,
            authentication_method: self.authentication_method.as_deref(),
            authentication_data: self.authentication_data.as_deref(),
            user: UserProperties::new(&user).expect("user properties"),
        };
        let connect = mqtt::Connect {
            version: self.version,
            clean_start: self.clean,
            keep_alive: self.keep_alive,
            client_id: &self.id,
            will,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
            properties,
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, self.version, &Packet::Connect(connect));
        bytes
    }

    pub fn send(&self, connection: &mut Connection) {
        connection.send_bytes(&self.encode());
    }
}
