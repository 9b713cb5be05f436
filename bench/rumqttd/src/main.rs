//! `bench-rumqttd PORT`: rumqttd with MQTT 3.1.1 over WebSocket.
//!
//! Its sockets wait 20 to 40 ms on Nagle's algorithm, since it does not set `TCP_NODELAY`. That is a fault and not what
//! is to be compared, so the option is set on the socket that listens, from which Linux gives it to each that is
//! accepted.

use std::{os::fd::BorrowedFd, thread, time::Duration};

use config::{Config, File, FileFormat};
use rumqttd::Broker;
use socket2::SockRef;

/// Descriptors among which the listening socket is.
const DESCRIPTORS: std::ops::Range<i32> = 3..256;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let port: u16 = std::env::args().nth(1).ok_or("bench-rumqttd PORT")?.parse()?;
    let text = format!(
        r#"
        id = 0
        [router]
        id = 0
        max_connections = 20000
        max_outgoing_packet_count = 1000
        max_segment_size = 104857600
        max_segment_count = 10
        [ws.1]
        name = "ws"
        listen = "127.0.0.1:{port}"
        next_connection_delay_ms = 0
        [ws.1.connections]
        connection_timeout_ms = 60000
        max_payload_size = 1048576
        max_inflight_count = 1000
        dynamic_filters = true
        "#
    );
    let config = Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build()?.try_deserialize()?;
    thread::spawn(|| {
        loop {
            hurry();
            thread::sleep(Duration::from_millis(20));
        }
    });
    Broker::new(config).start().map_err(|error| error.to_string())?;
    Ok(())
}

/// Sets the option on every socket that listens.
fn hurry() {
    for descriptor in DESCRIPTORS {
        // SAFETY: the descriptor is only asked what it is; where it is none, or is closed meanwhile, that fails.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let socket = SockRef::from(&descriptor);
        if socket.is_listener().unwrap_or(false) {
            let _ = socket.set_tcp_nodelay(true);
        }
    }
}
