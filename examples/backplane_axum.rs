//! An axum application that was there before Wigwag and knows nothing of WebSockets, tokens or rooms. It speaks MQTT
//! to the broker beside it, with the library it already has, and so reaches every browser:
//!
//! ```sh
//! WIGWAG_BACKPLANE__EMBEDDED__PASSWORD=secret wigwag serve &
//! cargo run --example backplane_axum -- mqtt://wigwag:secret@127.0.0.1:1884 127.0.0.1:3000 &
//! wigwag sub -t 'app/news' &                                     # as a page would
//! curl -d 'the soup is ready' http://127.0.0.1:3000/news         # to all pages
//! wigwag pub -q 1 -t app/orders/7 -m 'one soup'                  # from a page
//! curl http://127.0.0.1:3000/orders                              # what pages ordered
//! ```

use std::{
    env,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get, routing::post};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::net::TcpListener;

/// What the application's handlers have in common.
#[derive(Clone)]
struct App {
    broker: AsyncClient,
    orders: Arc<Mutex<Vec<String>>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "mqtt://wigwag:secret@127.0.0.1:1884".into());
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".into());

    let (broker, events) = AsyncClient::new(options(&broker).ok_or("not mqtt://USER:PASSWORD@HOST:PORT")?, 100);
    let app = App { broker, orders: Arc::default() };
    tokio::spawn(take_orders(app.clone(), events));

    let router = Router::new().route("/news", post(news)).route("/orders", get(orders)).with_state(app);
    let listener = TcpListener::bind(listen).await?;
    println!("http://{}/", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// A session that the broker keeps while the application is restarted: no order is missed.
fn options(url: &str) -> Option<MqttOptions> {
    let (credentials, address) = url.strip_prefix("mqtt://")?.split_once('@')?;
    let (user, password) = credentials.split_once(':')?;
    let (host, port) = address.rsplit_once(':')?;
    let mut options = MqttOptions::new("shop", host, port.parse().ok()?);
    options.set_credentials(user, password).set_clean_session(false);
    options.set_max_packet_size(128 << 10, 128 << 10);
    Some(options)
}

/// Tells every page.
async fn news(State(app): State<App>, text: String) -> (StatusCode, String) {
    match app.broker.publish("app/news", QoS::AtLeastOnce, false, text).await {
        Ok(()) => (StatusCode::ACCEPTED, String::new()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// What pages have ordered.
async fn orders(State(app): State<App>) -> String {
    app.orders.lock().map(|orders| orders.join("\n")).unwrap_or_default()
}

async fn take_orders(app: App, mut events: EventLoop) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if let Err(error) = app.broker.try_subscribe("app/orders/+", QoS::AtLeastOnce) {
                    eprintln!("{error}");
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => println!("connected"),
            Ok(Event::Incoming(Packet::Publish(order))) => {
                let text = String::from_utf8_lossy(&order.payload).into_owned();
                if let Ok(mut orders) = app.orders.lock() {
                    orders.push(format!("{}: {text}", order.topic));
                }
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("{error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
