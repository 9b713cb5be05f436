//! The broker inside somebody else's axum application: one port and one router for both, as in `examples/embed_axum.rs`.

mod harness;

use std::{
    future::IntoFuture,
    io::{Read, Write},
    net::{SocketAddr, TcpStream as StdStream},
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, routing::get, serve::Listener};
use harness::*;
use tokio::{
    io::BufStream,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use wigwag::QoS as Level;

/// How the application serves.
#[derive(Clone, Copy)]
enum Serving {
    WithAddresses,
    WithoutAddresses,
    /// Streams that are no plain sockets.
    Buffered,
}

/// An application with a runtime of its own.
struct Host {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(broker: &Broker, serving: Serving) -> Self {
        let app = Router::new().route("/", get(|| async { "the application\n" })).merge(broker.running().router());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let run = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("bound")).expect("the test waits for it");
            let with_addresses = app.clone().into_make_service_with_connect_info::<SocketAddr>();
            let served = async {
                match serving {
                    Serving::WithAddresses => axum::serve(listener, with_addresses).into_future().await,
                    Serving::WithoutAddresses => axum::serve(listener, app).into_future().await,
                    Serving::Buffered => axum::serve(Buffered(listener), app).into_future().await,
                }
            };
            tokio::select! {
                served = served => served.expect("it serves"),
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run);
        });
        let address = told.recv().expect("it starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self, client: &Client) -> Connection {
        let mut connection = Connection::new(Socket::open(self.address, Transport::WebSocket), client.version);
        client.send(&mut connection);
        connection
    }

    #[track_caller]
    fn connected(&self, client: &Client) -> Connection {
        let mut connection = self.connect(client);
        assert_eq!(connection.expect_connack().reason, 0);
        connection
    }

    /// Ends the application, its runtime and every task on it.
    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it served without a panic");
        }
    }

    /// Asks for a page, and returns the whole answer.
    fn get(&self, request: &str) -> String {
        let mut stream = StdStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

struct Buffered(TcpListener);

impl Listener for Buffered {
    type Io = BufStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (BufStream::new(stream), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A broker without ports.
fn guest(change: impl FnOnce(&mut Config)) -> Broker {
    Broker::start_with(|config| {
        config.http.listen = Vec::new();
        config.mqtt.listen = Vec::new();
        change(config);
    })
}

#[test]
fn one_port_for_the_application_and_mqtt() {
    for serving in [Serving::WithAddresses, Serving::WithoutAddresses, Serving::Buffered] {
        let broker = guest(|_| {});
        let host = Host::start(&broker, serving);
        let mut greeter = broker.running().client("greeter").expect("a name");
        greeter.subscribe("hello", Level::AtLeastOnce).expect("open");

        let page = host.get("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(page.ends_with("the application\n"), "{page}");
        for version in VERSIONS {
            let mut client = host.connected(&Client::new(version, "c"));
            client.subscribe("hello/ada", 1);
            assert_eq!(client.publish(Message::new("hello", "ada").qos(1)), 0);
            let name = broker.block_on(greeter.recv()).expect("it is not ended");
            assert_eq!((name.topic(), name.payload()), ("hello", &b"ada"[..]));
            greeter.publish("hello/ada", b"welcome", Level::AtLeastOnce).expect("open");
            assert_eq!(client.expect_message().gist(), ("hello/ada", "welcome", 1, false));

            // More than one write takes, both ways.
            let large: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
            client.send_publish(Message::new("hello", &large));
            assert_eq!(broker.block_on(greeter.recv()).expect("it is not ended").payload(), large);
            greeter.publish("hello/ada", &large, Level::AtMostOnce).expect("open");
            assert_eq!(client.expect_message().payload, large);
            client.disconnect();
        }
        broker.wait_for_sessions(1);
    }
}

#[test]
fn connections_on_plain_sockets_do_not_depend_on_the_hosts_runtime() {
    let broker = guest(|_| {});
    for (serving, survives) in
        [(Serving::WithAddresses, true), (Serving::WithoutAddresses, true), (Serving::Buffered, false)]
    {
        let mut host = Host::start(&broker, serving);
        let mut client = host.connected(&Client::v5("c"));
        client.ping();
        host.end();
        if survives {
            client.ping();
            client.disconnect();
        } else {
            client.expect_closed();
        }
        broker.wait_for_sessions(0);
    }
}

#[test]
fn addresses_are_limited_where_they_are_known() {
    let broker = guest(|config| config.limits.connections_per_address = Some(1));
    let known = Host::start(&broker, Serving::WithAddresses);
    let first = known.connected(&Client::v5("a"));
    let mut second = known.connect(&Client::v5("b"));
    assert_eq!(second.expect_connack().reason, 0x97);

    let unknown = Host::start(&broker, Serving::WithoutAddresses);
    let mut clients: Vec<_> = (0..20).map(|n| unknown.connected(&Client::v5(&format!("c{n}")))).collect();
    clients.iter_mut().for_each(Connection::ping);
    drop((first, second, clients));
    broker.wait_for_sessions(0);
}

#[test]
fn a_shutdown_ends_what_came_through_the_host_and_admits_no_more() {
    for serving in [Serving::WithAddresses, Serving::Buffered] {
        for graceful in [true, false] {
            let broker = guest(|_| {});
            let host = Host::start(&broker, serving);
            let mut client = host.connected(&Client::v5("c"));
            let silent = Socket::open(host.address, Transport::WebSocket);
            if graceful {
                std::thread::scope(|scope| {
                    scope.spawn(move || client.expect_disconnect(0x8B));
                    broker.shutdown(Duration::from_secs(20));
                });
            } else {
                drop(broker);
                while client.next(PATIENCE).is_ok() {}
                assert_eq!(client.socket.read(PATIENCE), Progress::End);
            }
            let mut silent = silent;
            assert_eq!(silent.read(PATIENCE), Progress::End);
            let answer = host.get(
                "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\n\r\n",
            );
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            let page = host.get("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            assert!(page.ends_with("the application\n"), "the application goes on: {page}");
        }
    }
}
