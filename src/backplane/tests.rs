//! What only this process can see: what the server itself says, and an embedded broker that dies.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions, mqttbytes::QoS as ServiceQoS, mqttbytes::v5::Packet};

use super::*;
use crate::{
    Config, Running, Server,
    auth::GrantClaims,
    config::{BackplaneMode, BrokerUrl, Password},
    wire::mqtt::PublishProperties,
};

const LONG: Duration = Duration::from_secs(60);

async fn started(mode: BackplaneMode) -> Running {
    let any_port = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config::default();
    (config.http.listen, config.mqtt.listen) = (vec![any_port], Vec::new());
    config.server.workers = Some(1);
    config.backplane.mode = mode;
    config.backplane.probe = Duration::from_millis(200);
    config.backplane.ttl = LONG;
    config.backplane.url = Some(BrokerUrl { tls: false, host: "127.0.0.1".into(), port: 9 });
    config.backplane.embedded.listen = any_port;
    config.backplane.embedded.password = Some(Password::new("secret"));
    Server::builder().config(config).start().await.expect("it starts")
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LONG, test).await.expect("in time") });
}

async fn eventually(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn of_what_the_server_says_events_leave_at_qos_1_and_nothing_else() {
    run(async {
        let running = started(BackplaneMode::Mqtt).await; // nobody is there
        let hub = running.hub();
        let backplane = Arc::clone(hub.backplane.get().expect("there is one"));
        let say = |topic: &str| {
            let now = Instant::now();
            let permit = hub.policy.server_message(topic, b"{}", QoS::AtMostOnce, false);
            hub.publish(Source::Server, permit, now, &mut Dirty::default()).expect("it may");
            backplane.outbox().len()
        };
        assert_eq!(say("$SYS/broker/uptime"), 0);
        assert_eq!(say("rooms/demo/presence/alice"), 0);
        assert_eq!(say("app/x"), 0);
        assert_eq!(say("events/member/joined"), 1);
        let mut taken = Vec::new();
        let take = |what: outbox::Say<'_>| {
            let outbox::Say::Publish { out, .. } = what else { panic!("{what:?}") };
            taken.push((out.message.topic().to_owned(), out.qos));
            true
        };
        let now = Instant::now();
        let terms = outbox::Terms { window: 10, qos_max: QoS::ExactlyOnce };
        backplane.outbox().connected(terms, false, now, |_| false);
        backplane.outbox().speak(now, take, &mut Vec::new());
        assert_eq!(taken, [("events/member/joined".to_owned(), QoS::AtLeastOnce)]);
    });
}

#[test]
fn what_came_from_there_never_goes_back() {
    run(async {
        let running = started(BackplaneMode::Mqtt).await;
        let hub = running.hub();
        let now = Instant::now();
        let permit = hub.policy.server_message("app/x", b"x", QoS::AtLeastOnce, true);
        hub.publish(Source::Backplane, permit, now, &mut Dirty::default()).expect("it may");
        assert!(hub.retains("app/x", b"x"));
        assert_eq!(hub.backplane.get().expect("there is one").outbox().len(), 0);
    });
}

#[test]
fn what_came_from_there_is_shown_to_who_sees_a_part() {
    run(async {
        let running = started(BackplaneMode::Mqtt).await;
        let observer =
            GrantClaims { subscribe: vec!["app/#".into()], roles: vec!["observe".into()], ..GrantClaims::default() };
        let mut observer = running.client_with("observer", &observer).expect("a name");
        observer.subscribe("#", crate::QoS::AtLeastOnce).expect("as much of it as it may see");
        let backplane = Arc::clone(running.hub().backplane.get().expect("there is one"));
        let mut inlet = inlet::Inlet::new(backplane, Arc::clone(running.hub()));
        let now = Instant::now();
        let properties = PublishProperties::default();
        let (qos, retain, own) = (QoS::AtLeastOnce, false, false);
        inlet.receive(&inlet::Incoming { topic: "app/x", payload: b"x", qos, retain, properties, own }, now);
        inlet.flush(now);
        assert_eq!(observer.recv().await.expect("it is shown").topic(), "app/x");
    });
}

/// The next message that a service gets, whatever its connection goes through meanwhile.
async fn next(service: &mut EventLoop, client: &AsyncClient, filter: &str) -> String {
    loop {
        match service.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe(filter, ServiceQoS::AtLeastOnce).expect("room");
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                return String::from_utf8_lossy(&publish.payload).into_owned();
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[test]
fn an_embedded_broker_that_dies_is_noticed_and_replaced_and_rooms_go_on() {
    run(async {
        let running = started(BackplaneMode::Embedded).await;
        let backplane = Arc::clone(running.hub().backplane.get().expect("there is one"));
        eventually(|| backplane.health() == Health::Up).await;

        let access = running.backplane().expect("embedded");
        let mut options = MqttOptions::new("service", access.address.ip().to_string(), access.address.port());
        options.set_credentials(&access.username, &access.password);
        let (client, mut service) = AsyncClient::new(options, 10);
        let browser = running.client("browser").expect("a name");
        let keep_saying = async {
            loop {
                // Refused or lost while the broker is dead; what counts is that it comes back.
                let _ = browser.publish("app/restart", b"hello", crate::QoS::AtLeastOnce);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            text = next(&mut service, &client, "app/restart") => assert_eq!(text, "hello"),
            () = keep_saying => {}
        }

        // Not through the port of services, which lets nobody do this.
        let dying = embedded::current().expect("it runs");
        let address = dying.address;
        let mut options = MqttOptions::new("killer", address.ip().to_string(), address.port());
        options.set_credentials(&dying.username, &dying.password);
        let (killer, mut events) = AsyncClient::new(options, 10);
        killer.try_publish("ü", ServiceQoS::AtMostOnce, false, "x").expect("room");
        while events.poll().await.is_ok() {}

        eventually(|| backplane.health() != Health::Up).await;
        let mut peer = running.client("peer").expect("a name");
        peer.subscribe("rooms/demo/chat", crate::QoS::AtLeastOnce).expect("it may");
        browser.subscribe("rooms/demo/signal", crate::QoS::AtLeastOnce).expect("it joins");
        let text = br#"{"username":"browser","text":"still here"}"#;
        browser.publish("rooms/demo/chat", text, crate::QoS::AtLeastOnce).expect("it may");
        assert_eq!(peer.recv().await.expect("a message").payload(), text);

        eventually(|| backplane.health() == Health::Up).await;
        assert!(!Arc::ptr_eq(&dying, &embedded::current().expect("another one")));
        let metrics = running.metrics();
        assert!(metrics.contains("\nwigwag_backplane_restarts_total 1\n"), "{metrics}");
        // The service finds it where the old one was.
        browser.publish("app/other", b"", crate::QoS::AtLeastOnce).expect("it may");
        let say_again = async {
            loop {
                let _ = browser.publish("app/restart", b"again", crate::QoS::AtLeastOnce);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let hear_again = async { while next(&mut service, &client, "app/restart").await != "again" {} };
        tokio::select! {
            () = hear_again => {}
            () = say_again => {}
        }
    });
}
