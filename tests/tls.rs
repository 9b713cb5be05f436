//! mqtts and wss: MQTT inside TLS, certificates that are replaced while the broker runs, and peers that speak something
//! else than the port does.

mod harness;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use harness::*;
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use tungstenite::client::IntoClientRequest;
use wigwag::{
    config::{Identity, IdentityFiles},
    wire::mqtt::{decode, encode},
};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for `localhost` in files of its own.
struct Files {
    paths: IdentityFiles,
    certificate: CertificateDer<'static>,
}

impl Files {
    fn new(test: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tls").join(test);
        std::fs::create_dir_all(&directory).expect("the test directory is writable");
        let paths = IdentityFiles { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        let mut files = Self { paths, certificate: CertificateDer::from(Vec::new()) };
        files.replace();
        files
    }

    /// Writes a new certificate and key in place of the old.
    fn replace(&mut self) {
        let (certificate, key) = self.replacement();
        std::fs::write(&self.paths.certificate, certificate).expect("writable");
        std::fs::write(&self.paths.key, key).expect("writable");
    }

    /// The text of both files, which are still to be written.
    fn replacement(&mut self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        self.certificate = made.cert.der().clone();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn broker(&self, reload: Option<Duration>) -> Broker {
        Broker::start_with(|config| {
            let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
            config.mqtt.tls_listen = vec![any_port];
            config.http.tls_listen = vec![any_port];
            config.tls.identity = Identity::Files(self.paths.clone());
            config.tls.reload = reload;
            config.limits.queue_bytes = 64 << 20;
        })
    }

    /// A client of a broker that shows this certificate, after the handshake.
    fn client(&self, address: SocketAddr) -> TlsStream {
        let mut stream = client(address, &self.certificate);
        let TlsStream { conn, sock } = &mut stream;
        while conn.is_handshaking() {
            conn.complete_io(sock).expect("the broker shows the certificate that is expected");
        }
        stream
    }
}

/// What a TLS client is that trusts `certificate`; it remembers the server.
fn trusting(certificate: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A TLS client that trusts `certificate`, before the handshake.
fn client(address: SocketAddr, certificate: &CertificateDer<'static>) -> TlsStream {
    connection(address, trusting(certificate))
}

fn connection(address: SocketAddr, config: Arc<ClientConfig>) -> TlsStream {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a client");
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    StreamOwned::new(connection, socket)
}

/// The certificate that the broker shows at the moment.
fn shown(address: SocketAddr, trusted: &CertificateDer<'static>) -> bool {
    let TlsStream { mut conn, mut sock } = client(address, trusted);
    loop {
        match conn.complete_io(&mut sock) {
            Ok(_) if !conn.is_handshaking() => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads one packet.
fn receive(stream: &mut impl Read) -> Received {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a packet");
        bytes.push(byte[0]);
        if decode(&bytes, Version::V5, usize::MAX).expect("a packet").is_some() {
            return Received { bytes, version: Version::V5 };
        }
    }
}

fn send(stream: &mut impl Write, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    encode(&mut bytes, Version::V5, packet);
    stream.write_all(&bytes).expect("the connection is open");
}

#[test]
fn mqtt_in_tls() {
    let files = Files::new("mqtt");
    let broker = files.broker(None);
    let mut inside = files.client(broker.running().addresses().mqtts[0]);
    inside.write_all(&Client::v5("inside").encode()).expect("it reads");
    assert!(matches!(receive(&mut inside).packet(), Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS));

    // Larger than what a TLS layer buffers, both ways, through the socket and back.
    let mut outside = broker.connect(Client::v5("outside"));
    outside.subscribe("out", 0);
    let large: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let mut bytes = Vec::new();
    Message::new("out", &large).encode(&mut bytes, Version::V5);
    inside.write_all(&bytes).expect("it reads");
    assert_eq!(outside.expect_publish().payload, large);

    drop(inside);
    broker.wait_for_sessions(1);
}

#[test]
fn many_messages_to_a_client_in_tls_that_reads_late() {
    let files = Files::new("late");
    let broker = files.broker(None);
    let mut late = files.client(broker.running().addresses().mqtts[0]);
    late.write_all(&Client::v5("late").encode()).expect("it reads");
    late.write_all(&[0x82, 7, 0, 1, 0, 0, 1, b't', 0]).expect("it reads");
    assert!(matches!(receive(&mut late).packet(), Packet::ConnAck(_)));
    assert!(matches!(receive(&mut late).packet(), Packet::SubAck(_)));
    let mut publisher = broker.connect(Client::v5("p"));
    // More than the system keeps for it, less than its queue.
    for number in 0..100_u8 {
        assert_eq!(publisher.publish(Message::new("t", vec![number; 100_000]).qos(1)), 0);
    }
    for number in 0..100_u8 {
        let received = receive_large(&mut late);
        let Packet::Publish(publish) = received.packet() else { panic!("{received:?}") };
        assert!(publish.payload.len() == 100_000 && publish.payload.iter().all(|byte| *byte == number));
    }
    send(&mut late, &Packet::PingReq);
    assert!(matches!(receive(&mut late).packet(), Packet::PingResp));
}

/// Reads a PUBLISH of 100,000 bytes: its length tells how much is to come.
fn receive_large(stream: &mut impl Read) -> Received {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).expect("a header");
    let length = bytes[1..].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7F));
    bytes.resize(4 + length, 0);
    stream.read_exact(&mut bytes[4..]).expect("the rest");
    Received { bytes, version: Version::V5 }
}

#[test]
fn websocket_in_tls() {
    let files = Files::new("websocket");
    let broker = files.broker(None);
    let stream = files.client(broker.running().addresses().https[0]);
    let mut request = "wss://localhost/mqtt".into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().expect("a value"));
    let (mut socket, response) = tungstenite::client(request, stream).expect("a handshake");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    socket.send(tungstenite::Message::binary(Client::v311("c").encode())).expect("it reads");
    assert_eq!(socket.read().expect("CONNACK").into_data()[..], [0x20, 2, 0, 0]);
    socket.send(tungstenite::Message::Ping("still there?".into())).expect("it reads");
    assert_eq!(socket.read().expect("a pong"), tungstenite::Message::Pong("still there?".into()));
    socket.send(tungstenite::Message::binary(vec![0xC0, 0])).expect("it reads");
    assert_eq!(socket.read().expect("PINGRESP").into_data()[..], [0xD0, 0]);
    socket.close(None).expect("it reads");
    while socket.read().is_ok() {}
    broker.wait_for_sessions(0);
}

#[test]
fn a_crowd_that_comes_back_is_resumed_however_large() {
    const CROWD: usize = 300; // more than a store of rustls' own would hold
    let files = Files::new("resumed");
    let broker = files.broker(None);
    let address = broker.running().addresses().mqtts[0];
    let handshake = |config: &Arc<ClientConfig>| {
        let mut stream = connection(address, Arc::clone(config));
        // The tickets come with the first answer.
        stream.write_all(&Client::v5("again").encode()).expect("it reads");
        receive(&mut stream);
        stream.conn.handshake_kind()
    };
    let crowd: Vec<_> = (0..CROWD).map(|_| trusting(&files.certificate)).collect();
    assert!(crowd.iter().all(|config| handshake(config) == Some(HandshakeKind::Full)));
    assert!(crowd.iter().all(|config| handshake(config) == Some(HandshakeKind::Resumed)));
}

#[test]
fn a_certificate_is_replaced_when_its_files_change() {
    let mut files = Files::new("watched");
    let broker = files.broker(Some(Duration::from_millis(100)));
    let address = broker.running().addresses().mqtts[0];
    let mut before = files.client(address);
    before.write_all(&Client::v5("before").encode()).expect("it reads");
    assert!(matches!(receive(&mut before).packet(), Packet::ConnAck(_)));
    let old = files.certificate.clone();

    // One file after the other, as tools write them: between the two they do not fit.
    let (certificate, key) = files.replacement();
    std::fs::write(&files.paths.certificate, certificate).expect("writable");
    assert!(broker.running().reload().is_err());
    assert!(shown(address, &old));
    std::fs::write(&files.paths.key, key).expect("writable");
    broker.wait_until("the new certificate", |_| shown(address, &files.certificate));
    assert!(!shown(address, &old));

    send(&mut before, &Packet::PingReq);
    assert!(matches!(receive(&mut before).packet(), Packet::PingResp), "connections stay");
}

#[test]
fn a_certificate_is_replaced_on_demand_and_broken_files_are_not() {
    let mut files = Files::new("reload");
    let broker = files.broker(None);
    let address = broker.running().addresses().https[0];
    let first = files.certificate.clone();
    let Files { paths, .. } = &files;
    type Break = fn(&Path);
    let broken: [(&str, Break); 3] = [
        ("garbage", |path| std::fs::write(path, "-----BEGIN CERTIFICATE-----\nnonsense").expect("writable")),
        ("empty", |path| std::fs::write(path, "").expect("writable")),
        ("gone", |path| std::fs::remove_file(path).expect("there")),
    ];
    for (what, break_it) in broken {
        break_it(&paths.certificate);
        let error = broker.running().reload().expect_err(what).to_string();
        assert!(error.contains("tls.certificate") && error.contains("certificate.pem"), "{what}: {error}");
        assert!(shown(address, &first), "{what}");
    }
    files.replace();
    std::fs::remove_file(&files.paths.key).expect("there");
    let error = broker.running().reload().expect_err("no key").to_string();
    assert!(error.contains("tls.key") && error.contains("key.pem"), "{error}");
    files.replace();
    assert!(shown(address, &first), "nobody has asked for the new one");
    broker.running().reload().expect("good files");
    assert!(shown(address, &files.certificate));
}

#[test]
fn a_broker_does_not_start_with_half_a_certificate() {
    let files = Files::new("half");
    std::fs::remove_file(&files.paths.key).expect("there");
    let mut config = Config::default();
    config.mqtt.listen = Vec::new();
    config.http.listen = Vec::new();
    config.mqtt.tls_listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.tls.identity = Identity::Files(files.paths);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(Server::builder().config(config).start()).err().expect("no key").to_string();
    assert!(error.contains("tls.key"), "{error}");
}

/// Sends bytes and reads until the broker has closed the connection.
#[track_caller]
fn closed_after(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.write_all(bytes).expect("it reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return answer,
            Err(error) => panic!("still open: {error}"),
        }
    }
}

#[test]
fn who_speaks_another_protocol_than_the_port_is_closed() {
    let files = Files::new("wrong");
    let broker = files.broker(None);
    let addresses = broker.running().addresses().clone();
    // Plain text where TLS is expected: an alert at most.
    for address in [addresses.mqtts[0], addresses.https[0]] {
        for bytes in [&Client::v5("plain").encode()[..], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let answer = closed_after(address, bytes);
            assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02X?}");
        }
    }
    // TLS where plain text is expected.
    let mut hello = Vec::new();
    let TlsStream { mut conn, .. } = client(addresses.mqtts[0], &files.certificate);
    conn.write_tls(&mut hello).expect("in memory");
    assert!(closed_after(addresses.mqtt[0], &hello).is_empty());
    let answer = closed_after(addresses.http[0], &hello);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    // HTTP on the MQTT port and MQTT on the HTTP port.
    assert!(closed_after(addresses.mqtt[0], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_empty());
    let answer = closed_after(addresses.http[0], &Client::v5("c").encode().repeat(20));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    assert!(shown(addresses.https[0], &files.certificate));
    assert_eq!(broker.running().held(), wigwag::Held::default());
}

#[test]
fn a_tls_hello_that_does_not_come_is_not_waited_for() {
    let files = Files::new("slow");
    let broker = Broker::start_with(|config| {
        config.mqtt.tls_listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls.identity = Identity::Files(files.paths.clone());
        config.limits.connect_timeout = Duration::from_millis(300);
    });
    let address = broker.running().addresses().mqtts[0];
    assert!(closed_after(address, &[]).is_empty());
    assert!(closed_after(address, &[0x16, 3, 1, 2]).is_empty());
    // The handshake alone makes no connection.
    let mut silent = files.client(address);
    match silent.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}"),
    }
}
