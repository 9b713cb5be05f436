//! `wigwag serve` as a supervisor sees it: what it prints, how it stops, what keeps it from starting.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Where services connect.
const LISTEN: &str = "WIGWAG_BACKPLANE__EMBEDDED__LISTEN";
const ANY_PORT: [&str; 4] = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];

/// A running broker, killed if the test does not see it end.
struct Broker {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Broker {
    /// Starts `command`, in a directory without a broker.toml.
    fn start(mut command: Command) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("serve");
        std::fs::create_dir_all(&directory).expect("the test directory is writable");
        if command.get_envs().all(|(name, _)| name != LISTEN) {
            command.env(LISTEN, "127.0.0.1:0");
        }
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the binary runs");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, stdout }
    }

    fn wigwag(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
        command.args(arguments);
        Self::start(command)
    }

    /// The next lines of standard output, which come when the broker is ready.
    fn lines(&mut self, count: usize) -> Vec<String> {
        let lines = self.stdout.by_ref().lines().take(count);
        lines.collect::<Result<_, _>>().expect("UTF-8")
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// Exit code, the rest of standard output, and standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut rest, mut errors) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        let mut stderr = self.process.stderr.take().expect("piped");
        stderr.read_to_string(&mut errors).expect("UTF-8");
        (self.process.wait().expect("it ends").code(), rest, errors)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail if it has ended, as it should have.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The scheme, host and path of a URL, and whether a port other than 0 was in it.
fn shape(url: &str) -> String {
    let (start, rest) = url.rsplit_once(':').expect(url);
    let path = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let port: u16 = rest[..rest.len() - path.len()].parse().expect(url);
    assert_ne!(port, 0);
    format!("{start}{path}")
}

#[test]
fn four_lines_then_served_until_told_to_stop() {
    for (arguments, signal) in [(&["serve"][..], Signal::TERM), (&[], Signal::INT)] {
        let mut broker = Broker::wigwag(&[arguments, &ANY_PORT].concat());
        let lines = broker.lines(4);
        let shapes: Vec<_> = lines[..3].iter().map(|line| shape(line)).collect();
        assert_eq!(shapes, ["http://127.0.0.1/", "ws://127.0.0.1/mqtt", "mqtt://127.0.0.1"]);
        let services = lines[3].strip_prefix("backplane mqtt://wigwag:").expect("where services connect");
        let (password, address) = services.split_once('@').expect(services);
        assert_eq!(password.len(), 32, "made for this run");
        assert_eq!(shape(&format!("mqtt://{address}")), "mqtt://127.0.0.1");
        broker.send(Signal::HUP);
        broker.send(signal);
        let (code, rest, errors) = broker.end();
        assert_eq!((code, rest.as_str()), (Some(0), ""), "{errors}");
    }
}

#[test]
fn dev_tls_adds_https_and_wss() {
    let mut broker = Broker::start({
        let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
        command.args(ANY_PORT).arg("--dev-tls").env("WIGWAG_HTTP__TLS_LISTEN", "127.0.0.1:0");
        command
    });
    let shapes: Vec<_> = broker.lines(6)[..5].iter().map(|line| shape(line)).collect();
    assert_eq!(shapes[3..], ["https://127.0.0.1/", "wss://127.0.0.1/mqtt"]);
    broker.send(Signal::TERM);
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn a_busy_port_and_a_wrong_configuration_keep_it_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, _, errors) = Broker::wigwag(&["--http", "127.0.0.1:0", "--mqtt", &address]).end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains(&address), "{errors}");

    let (code, _, errors) = Broker::start({
        let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
        command.args(ANY_PORT).env(LISTEN, &address);
        command
    })
    .end();
    assert_eq!(code, Some(1), "{errors}");
    let expected = format!("backplane.embedded.listen: cannot listen on {address}: ");
    assert!(errors.contains(&expected), "{errors}");

    let (code, _, errors) = Broker::wigwag(&["serve", "--http", "localhost:80"]).end();
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.starts_with("--http: http.listen: found \"localhost:80\", allowed: "), "{errors}");
}

#[test]
fn flags_belong_to_one_command() {
    let (code, _, errors) = Broker::wigwag(&["--workers", "2", "check"]).end();
    assert_eq!(code, Some(2), "{errors}");
}

/// Where nobody can have a credential for the API, `serve` makes one; where somebody can, it does not.
#[test]
fn a_key_for_the_api_is_printed_once_in_open_mode() {
    let start = |environment: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
        command.args(ANY_PORT).envs(environment.iter().copied());
        let mut broker = Broker::start(command);
        let url = broker.lines(3)[0].clone();
        broker.send(Signal::TERM);
        let (code, _, errors) = broker.end();
        assert_eq!(code, Some(0), "{errors}");
        let key = errors.lines().find_map(|line| line.strip_prefix("key of the API, for this run: ")).map(String::from);
        (url, key)
    };
    let (first, second) = (start(&[]).1.expect("a key"), start(&[]).1.expect("a key"));
    assert!(first.len() == 64 && first != second, "{first} {second}");
    let secret = "0123456789abcdef0123456789abcdef";
    assert_eq!(start(&[("WIGWAG_API__KEYS", secret)]).1, None);
    assert_eq!(start(&[("WIGWAG_AUTH__METHODS", "token"), ("WIGWAG_AUTH__TOKEN__SECRET", secret)]).1, None);
}
