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
