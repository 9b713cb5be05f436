//! Wigwag inside an axum application: one port, one router, and a greeter that takes part without a socket.
//!
//! Start it with `cargo run --example embed_axum`, and then, with any MQTT client over WebSocket:
//!
//! ```sh
//! wigwag sub --url ws://127.0.0.1:3000/mqtt --topic 'app/hello/+' &
//! wigwag pub --url ws://127.0.0.1:3000/mqtt --topic app/hello --message Ada
//! ```

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use wigwag::{Client, Config, QoS, Server};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The application has a port; the broker needs none of its own.
    let mut config = Config::default();
    config.http.listen = Vec::new();
    config.mqtt.listen = Vec::new();
    let wigwag = Server::builder().config(config).start().await?;

    tokio::spawn(greet(wigwag.client("greeter")?));

    let app = Router::new().route("/", get(|| async { "MQTT is at /mqtt\n" })).merge(wigwag.router());
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://{0}/ and ws://{0}/mqtt", listener.local_addr()?);
    // With connect info, connections are limited by address as on the broker's own ports.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { _ = tokio::signal::ctrl_c().await })
        .await?;

    wigwag.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Welcomes everybody who says a name on `app/hello`, on a topic of that name.
async fn greet(mut greeter: Client) {
    if let Err(error) = greeter.subscribe("app/hello", QoS::AtLeastOnce) {
        return eprintln!("{error}");
    }
    while let Some(message) = greeter.recv().await {
        let name = String::from_utf8_lossy(message.payload());
        let greeting = format!("Welcome, {name}!");
        // A name can be no topic level, or not one that this server allows.
        if let Err(error) = greeter.publish(&format!("app/hello/{name}"), greeting.as_bytes(), QoS::AtLeastOnce) {
            eprintln!("{error}");
        }
    }
}
