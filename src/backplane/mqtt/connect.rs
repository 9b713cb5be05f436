//! Where the broker is, how it is reached, and why that fails.

use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use rumqttc::{
    NetworkOptions, TlsConfiguration, Transport,
    v5::{
        ConnectionError, MqttOptions, StateError,
        mqttbytes::v5::{ConnectProperties, ConnectReturnCode},
    },
};
use tokio_rustls::rustls::ClientConfig;

use super::INFLIGHT;
use crate::{
    backplane::embedded::{Router, Size},
    config::BrokerUrl,
};

/// What rumqttc pings at; the probes find out sooner.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the broker is.
pub enum Broker {
    Embedded { router: Arc<Router>, size: Size },
    Remote { url: BrokerUrl, tls: Option<Arc<ClientConfig>> },
}

/// Why a connection ended.
pub enum Failure {
    /// It broke, or was never made.
    Connection(String),
    /// The broker refused the connection, or a subscription.
    Unwanted(String),
    /// What was said made no sense.
    Protocol(String),
    /// Nothing came back.
    Silence,
}

impl Broker {
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { .. } => "the embedded broker".into(),
            Self::Remote { url, .. } => url.to_string(),
        }
    }
}

/// How rumqttc connects.
pub fn options(
    broker: &Broker,
    client_id: &str,
    credentials: Option<&(String, String)>,
    session: Duration,
    packet: usize,
) -> MqttOptions {
    let mut options = match broker {
        Broker::Embedded { router, .. } => {
            let mut options = MqttOptions::new(client_id, router.address.ip().to_string(), router.address.port());
            options.set_credentials(&router.username, &router.password);
            options
        }
        Broker::Remote { url, tls } => {
            // rumqttc puts the port behind it; an address in a certificate has no brackets.
            let bracketed = url.host.contains(':') && tls.is_none();
            let host = if bracketed { format!("[{}]", url.host) } else { url.host.clone() };
            let mut options = MqttOptions::new(client_id, host, url.port);
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            if let Some(tls) = tls {
                options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::clone(tls))));
            }
            options
        }
    };
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = u32::try_from(session.as_secs()).ok();
    properties.receive_maximum = Some(INFLIGHT);
    properties.max_packet_size = u32::try_from(packet).ok();
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_connect_properties(properties)
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_network_options(network);
    options
}

pub fn classify(error: &ConnectionError) -> Failure {
    let text = explain(error);
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::ServerBusy | ConnectReturnCode::ServerUnavailable => Failure::Connection(text),
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => Failure::Unwanted(format!(
                "the broker refuses this user name and password ({code:?}): backplane.username, backplane.password"
            )),
            code => Failure::Unwanted(format!("the broker refuses the connection: {code:?}")),
        },
        ConnectionError::MqttState(
            StateError::Io(_)
            | StateError::ConnectionAborted
            | StateError::AwaitPingResp
            | StateError::ServerDisconnect { .. },
        ) => Failure::Connection(text),
        ConnectionError::MqttState(StateError::ConnFail { .. }) => Failure::Unwanted(text),
        ConnectionError::MqttState(_) | ConnectionError::NotConnAck(_) => Failure::Protocol(text),
        _ => Failure::Connection(text),
    }
}

/// An error with its causes, on one line.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// From half of it to all of it, so that servers that lost the same broker do not come back at once.
pub fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}
