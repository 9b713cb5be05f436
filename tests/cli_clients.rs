//! `wigwag pub` and `wigwag sub` where there is no broker: what they refuse, and how they fail.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn wigwag(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

#[test]
fn nonsense_is_refused_before_anything_is_tried() {
    let table: [(&[&str], &str); 8] = [
        (&["pub", "-t", "a/+", "-m", "x"], "--topic \"a/+\": a topic has 1 to 65535 bytes and no + or #\n"),
        (&["pub", "-t", "", "-m", "x"], "--topic \"\": a topic has 1 to 65535 bytes and no + or #\n"),
        (&["pub", "-t", "a", "-f", "no/such/file"], "--file no/such/file: No such file or directory (os error 2)\n"),
        (&["pub", "-t", "a", "-m", "x", "-V", "4", "-P", "secret"], "MQTT 3.1.1 takes no password without --user\n"),
        (
            &["sub", "-t", "a", "-t", "a/#/b"],
            "--topic \"a/#/b\": a filter has 1 to 65535 bytes, + stands for a whole level, # for all that follow\n",
        ),
        (
            &["sub", "-t", "a", "--url", "http://127.0.0.1"],
            "--url http://127.0.0.1: known are mqtt://, mqtts://, ws:// and wss://\n",
        ),
        (
            &["sub", "-t", "a", "--url", "127.0.0.1:1883"],
            "--url 127.0.0.1:1883: a URL looks like mqtt://127.0.0.1:1883 or ws://127.0.0.1:8080/mqtt\n",
        ),
        (
            &["sub", "-t", "a", "--url", "gopher://u:p@127.0.0.1"],
            "--url gopher://127.0.0.1: known are mqtt://, mqtts://, ws:// and wss://\n",
        ),
    ];
    for (arguments, complaint) in table {
        let output = wigwag(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stderr), complaint, "{arguments:?}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [["-q", "3"], ["-V", "3"], ["-C", "0"], ["-W", "0"]] {
        assert_eq!(wigwag(&[&["sub", "-t", "a"][..], &arguments].concat()).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn nobody_listens() {
    // Bound, then given up: nobody else has it at once.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    for scheme in ["mqtt", "ws", "mqtts", "wss"] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        for arguments in [&["pub", "-t", "a", "-m", "x"][..], &["sub", "-t", "a"]] {
            let output = wigwag(&[arguments, &["--insecure", "--url", &url]].concat());
            let complaint = format!("{url}: I/O: Connection refused (os error 111)\n");
            assert_eq!(String::from_utf8_lossy(&output.stderr), complaint, "{arguments:?}");
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
    }
}

#[test]
fn time_runs_out_before_there_is_a_connection() {
    // Accepts in the kernel and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("mqtt://{}", silent.local_addr().expect("bound"));
    let output = wigwag(&["sub", "-t", "a", "-W", "1", "--url", &url]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{url}: no connection yet\n"));
    assert_eq!(output.status.code(), Some(1));
}
