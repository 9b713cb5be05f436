//! `wigwag bench connect`: clients that come, subscribe to a room, and go.
//!
//! Of a server that speaks no MQTT (`https://`, `http://`) a client asks for one page instead, so that TLS handshakes can
//! be compared.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::histogram::{Latencies, Percentiles};
use super::peer::Login;
use super::process::{Cost, Meter};
use super::report::{self, Progress, cost_rows, micros_each};
use super::swarm::{Handshakes, Script, Swarm, events};
use super::target::{TargetArgs, TimesArgs, tokens};

#[derive(Args)]
pub struct ConnectArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Tokens, one a line, which the clients use in turn as passwords, with the user name that each is for
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    tokens: Option<PathBuf>,

    /// Clients that are connecting at the same time
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,

    #[command(flatten)]
    times: TimesArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    concurrency: u32,
    connected: u64,
    connects_per_second: f64,
    /// With TLS; how many of them were resumed.
    handshakes: Handshakes,
    /// From the first packet of TCP to SUBACK.
    latency_us: Percentiles,
    server_cpu_us_per_connect: Option<f64>,
    generator_cpu_us_per_connect: f64,
    cost: Cost,
}

struct Visitors {
    /// When each of those that are connecting began, by client.
    began: Vec<Instant>,
    come: u64,
    latencies: Latencies,
}

pub fn run(args: &ConnectArgs) -> Result<(), Failure> {
    let mut target = args.target.resolve_any()?;
    target.tokens = args.tokens.as_deref().map_or(Ok(Vec::new()), tokens)?;
    let mut swarm = Swarm::new(target)?;
    let mut progress = Progress::new(args.target.json);
    let mut visitors = Visitors { began: Vec::new(), come: 0, latencies: Latencies::new() };
    for _ in 0..args.concurrency {
        visitors.next(&mut swarm)?;
    }
    visitors.keep_coming(&mut swarm, args.times.warmup(), &mut progress)?;
    visitors.latencies.clear();
    let (before, shaken) = (visitors.come, swarm.handshakes);
    let meter = Meter::start(args.target.pid)?;
    visitors.keep_coming(&mut swarm, args.times.measured(), &mut progress)?;
    let cost = meter.read()?;
    drop(progress);

    let connected = visitors.come - before;
    let handshakes =
        Handshakes { full: swarm.handshakes.full - shaken.full, resumed: swarm.handshakes.resumed - shaken.resumed };
    let latency_us = visitors.latencies.percentiles();
    let report = Report {
        workload: "connect",
        url: &args.target.url,
        concurrency: args.concurrency,
        connected,
        connects_per_second: connected as f64 / cost.seconds,
        handshakes,
        latency_us,
        server_cpu_us_per_connect: cost.server_cpu_seconds.map(|cpu| micros_each(cpu, connected)),
        generator_cpu_us_per_connect: micros_each(cost.generator_cpu_seconds, connected),
        cost,
    };
    let mut rows = vec![("connected", format!("{connected} ({:.0} a second)", report.connects_per_second))];
    if handshakes != Handshakes::default() {
        rows.push(("TLS handshakes", format!("{} full, {} resumed", handshakes.full, handshakes.resumed)));
    }
    rows.extend(latency_us.rows());
    rows.extend(cost_rows(&cost, connected, "connect"));
    report::print(args.target.json, &report, &rows)
}

impl Visitors {
    fn next(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        let nth = swarm.dialed();
        let filters = vec![format!("rooms/bench-{}/signal", nth / 2)];
        let user_name = format!("bench-{nth}");
        let now = Instant::now();
        let id = swarm.open(Login {
            client_id: user_name.clone(),
            user_name,
            keep_alive: 60,
            filters,
            qos: 1,
            ..Login::default()
        })?;
        self.began.resize(self.began.len().max(id + 1), now);
        self.began[id] = now;
        Ok(())
    }

    fn keep_coming(&mut self, swarm: &mut Swarm, during: Duration, progress: &mut Progress) -> Result<(), Failure> {
        let mut events = events();
        let end = Instant::now() + during;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            swarm.turn(&mut events, self, Duration::from_millis(50))?;
            progress.tick(now, || format!("{} came and went, {} s to go", self.come, (end - now).as_secs()));
        }
    }
}

impl Script for Visitors {
    fn ready(&mut self, swarm: &mut Swarm, id: usize) -> Result<(), Failure> {
        self.come += 1;
        self.latencies.record(swarm.now.saturating_duration_since(self.began[id]));
        swarm.close(id);
        self.next(swarm)
    }
}
