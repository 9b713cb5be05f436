//! `wigwag bench` against a broker that has no room for it: it says so, and what is likely to be the reason.

mod harness;

use std::process::{Command, Stdio};

use harness::*;

fn idle(broker: &Broker, transport: Transport, version: &str, connections: &str) -> (Option<i32>, String) {
    let address = broker.address(transport);
    let url = if transport == Transport::Tcp { format!("mqtt://{address}") } else { format!("ws://{address}/mqtt") };
    let output = Command::new(env!("CARGO_BIN_EXE_wigwag"))
        .args(["bench", "idle", "--url", &url, "-V", version, "--connections", connections, "--base", "1", "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_broker_without_room_is_told_from_one_that_fails() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| config.limits.connections_per_address = Some(20));
        for (version, connections, answers) in [
            ("4", "24", &["CONNECT refused, code 0x03; "][..]),
            ("5", "24", &["CONNECT refused, code 0x97 (as many connections as this server takes from one address); "]),
            // So many that not all of them are answered.
            ("4", "200", &["closed", "reset", "refused", "503", "Broken pipe"]),
        ] {
            let (code, errors) = idle(&broker, transport, version, connections);
            assert_eq!(code, Some(1), "{errors}");
            assert!(answers.iter().any(|answer| errors.contains(answer)), "{errors}");
            assert!(errors.contains("WIGWAG_LIMITS__CONNECTIONS_PER_ADDRESS=0"), "{errors}");
            broker.wait_for_connections(0);
        }
    }
}

/// What a workload reports about a broker with the shipped topic table.
fn report(broker: &Broker, url: &str, arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_wigwag"))
        .args(["bench", arguments[0], "--url", url, "--json", "--seconds", "1", "--warmup", "0"])
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    broker.wait_for_connections(0);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn members_are_told_of_members_and_observers_of_all() {
    let broker = Broker::shipped_with(|config| {
        config.rate = wigwag::config::RateConfig::unlimited();
        let unlimited = config.rate.connection;
        config.topics.0.iter_mut().for_each(|row| row.rate = unlimited);
    });
    let url = format!("mqtt://{}", broker.address(Transport::Tcp));
    for roster in ["server", "client"] {
        let sizes = ["--rooms", "2", "--members", "3", "--roster", roster];
        let presence = report(&broker, &url, &[&["presence"], &sizes[..]].concat());
        assert_eq!(presence["lost"], 0, "{presence}");
        assert!(presence["delivered"].as_u64() > Some(0), "{presence}");
    }
    let call = report(&broker, &url, &["call", "--rooms", "2", "--observers", "2", "--live-topics", "200"]);
    assert_eq!(call["lost"], 0, "{call}");
    assert!(call["observed"].as_u64() > call["measured"].as_u64(), "{call}");
    let fanout = report(&broker, &url, &["fanout", "--members", "5", "--listen-only"]);
    assert_eq!(fanout["lost"], 0, "{fanout}");
}

#[test]
fn handshakes_are_resumed_unless_they_are_not_to_be() {
    let broker = Broker::shipped_with(|config| {
        config.http.tls_listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0))];
        config.tls.identity = wigwag::config::Identity::SelfSigned;
    });
    let address = broker.running().addresses().https[0];
    for (url, more, resumed) in [
        (format!("wss://{address}/mqtt"), &["--insecure", "--no-resumption"][..], false),
        (format!("https://{address}/healthz"), &["--insecure"], true),
    ] {
        let connect = report(&broker, &url, &[&["connect", "--concurrency", "2"], more].concat());
        let of = |kind: &str| connect["handshakes"][kind].as_u64().expect("a number");
        assert!(of("full") + of("resumed") > 0 && (of("resumed") > 0) == resumed, "{connect}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_wigwag"))
        .args(["bench", "connect", "--url", &format!("wss://{address}/mqtt")])
        .output()
        .expect("the binary runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no TLS") && errors.contains("--insecure"), "{errors}");
}
