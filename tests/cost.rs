//! What the hot path costs, in units that are the same on a busy machine: instructions of a message, counted by
//! callgrind in an optimised build; allocations of a message; bytes of an idle connection.
//!
//! A bound is what was measured and a tenth more. Whoever exceeds it has made every message dearer: find out why
//! (`cargo bench --bench hot_path`; `callgrind_annotate` on the file that is named), and either mend that or raise the
//! bound and say in the commit what it buys. Whoever stays far below it lowers it.

#[path = "../benches/support/counting.rs"]
mod counting;
mod harness;
#[path = "../benches/support/mod.rs"]
mod support;
#[path = "../benches/support/workloads.rs"]
mod workloads;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use counting::{Counting, allocations, held};
use harness::{Broker, Client, Connection, Transport, Version};
use support::World;
use workloads::{NAMES, Workload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes of the whole process are counted, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// For each of [`NAMES`]: steps that are counted, and instructions of the broker for each delivery or connection.
const INSTRUCTIONS: [(usize, u64); 5] = [(100, 16_790), (100, 16_610), (200, 24_850), (60, 7_100), (150, 146_200)];
/// The same in allocations, of broker and generator.
const ALLOCATIONS: [f64; 5] = [8.8, 8.8, 11.1, 4.6, 147.0];
/// Bytes of an idle member of a room of two, on average while tables grow.
const IDLE: [(Transport, isize); 2] = [(Transport::WebSocket, 2_790), (Transport::Tcp, 2_730)];

/// What is above a bound, said so that it can be acted upon.
fn check(what: &str, unit: &str, measured: f64, bound: f64) -> Result<(), String> {
    println!("{what}: {measured:.1} {unit}, at most {bound}");
    let dearer = format!("{what}: {measured:.1} {unit}, and {bound} are the bound (tests/cost.rs says what to do)");
    if measured <= bound { Ok(()) } else { Err(dearer) }
}

fn all(checked: impl Iterator<Item = Result<(), String>>) {
    let dearer: Vec<String> = checked.filter_map(Result::err).collect();
    assert!(dearer.is_empty(), "{}", dearer.join("\n"));
}

#[test]
fn instructions_of_a_message() {
    let _alone = ALONE.lock();
    let program = optimised();
    all(NAMES.iter().zip(INSTRUCTIONS).map(|(name, (steps, bound))| {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{name}"));
        let measured = instructions(&program, name, steps, &output);
        let compiler = first_line(Command::new("rustc").arg("--version"));
        check(name, "instructions", measured, bound as f64)
            .map_err(|dearer| format!("{dearer}\n  by {compiler}; see callgrind_annotate {}", output.display()))
    }));
}

/// Counts what the broker does inside of `wigwag_works` and nowhere else.
fn instructions(program: &Path, name: &str, steps: usize, output: &Path) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=wigwag_works"]);
    valgrind.arg(format!("--callgrind-out-file={}", output.display()));
    let run = valgrind.arg(program).args([name, &steps.to_string()]).stdin(Stdio::null()).output();
    let run = run.expect("please install valgrind (scripts/setup does): instructions are counted by its callgrind");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name}: {errors}");
    let counted: f64 = String::from_utf8_lossy(&run.stdout).trim().parse().expect("a number of deliveries");
    let profile = std::fs::read_to_string(output).expect("callgrind has written it");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    let total: f64 = total.trim().parse().expect("a number of instructions");
    assert!(total > 0.0, "nothing ran inside of wigwag_works: {errors}");
    total / counted
}

/// `benches/cost.rs`, this crate in it optimised and its dependencies as they were built for the tests. Debug
/// assertions stay on, so the figures are above those of a release.
fn optimised() -> PathBuf {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_INCREMENTAL", "CARGO_NET_OFFLINE"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bench", "cost", "--message-format=json"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stderr(Stdio::inherit());
    // What cargo tells a test, build scripts would take for a change, and build their libraries again.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && !KEPT.contains(&name.as_str())) {
        build.env_remove(name);
    }
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    let built = build.output().expect("cargo runs");
    assert!(built.status.success(), "benches/cost.rs is built");
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = artifacts.filter(|message| message["target"]["name"] == "cost");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.expect("cargo says where it is")
}

fn first_line(command: &mut Command) -> String {
    let said = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    said.ok().and_then(|said| said.lines().next().map(str::to_owned)).unwrap_or_default()
}

#[test]
fn allocations_of_a_message() {
    const STEPS: usize = 200;
    let _alone = ALONE.lock();
    all(NAMES.iter().zip(ALLOCATIONS).map(|(name, bound)| {
        let mut workload = Workload::new(name).expect("it is in the list");
        workload.warm_up();
        let (count, done) = allocations(|| (0..STEPS).map(|_| workload.step(World::settle)).sum::<usize>());
        check(name, "allocations", count as f64 / done as f64, bound)
    }));
}

/// On sockets, since a connection on another kind of stream holds that in a box.
#[test]
fn bytes_of_an_idle_connection() {
    const BASE: usize = 100;
    const MORE: usize = 300;
    let _alone = ALONE.lock();
    all(IDLE.into_iter().map(|(transport, bound)| {
        let broker = Broker::shipped_with(|config| config.server.workers = Some(1));
        let mut members = Vec::with_capacity(BASE + MORE);
        let base = crowd(&broker, transport, BASE, &mut members);
        let all = crowd(&broker, transport, BASE + MORE, &mut members);
        let each = (all - base) as f64 / MORE as f64;
        check(&format!("idle over {transport:?}"), "bytes", each, bound as f64)
    }));
}

/// Members of rooms of two, `total` in all; returns the bytes held when they are there.
fn crowd(broker: &Broker, transport: Transport, total: usize, members: &mut Vec<Connection>) -> isize {
    for nth in members.len()..total {
        let user = format!("bench-{nth}");
        let client = Client { transport, user_name: Some(user.clone()), ..Client::new(Version::V311, &user) };
        let mut connection = broker.connect(client);
        connection.subscribe(&format!("rooms/bench-{}/signal", nth / 2), 1);
        connection.ping();
        connection.socket.inbox = Vec::new(); // what the client itself holds does not count
        members.push(connection);
    }
    broker.wait_for_connections(total);
    thread::sleep(Duration::from_millis(200)); // what served the handshake is given back
    held()
}

#[test]
fn valgrind_is_here() {
    let version = first_line(Command::new("valgrind").arg("--version"));
    assert!(version.starts_with("valgrind"), "please install valgrind, by this name everywhere; scripts/setup does");
}
