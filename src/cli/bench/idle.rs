//! `wigwag bench idle`: what a connection costs that does nothing but stay.
//!
//! Members of rooms of two, who ping when their keep-alive asks for it. Memory for each is the growth of the broker's
//! proportional set from a first crowd to the whole one, so that what a broker needs anyway is left out.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Failure;
use super::peer::Login;
use super::process::{Cost, Memory, Meter, memory};
use super::report::{self, Progress, cost_rows};
use super::swarm::{Script, Swarm, events};
use super::target::TargetArgs;

/// How long a broker may take to give back what accepting needed.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Connections; those to 127.0.0.1 come from a new loopback address every 500, all others from one address, of which
    /// Wigwag takes 1000 unless it was started with WIGWAG_LIMITS__CONNECTIONS_PER_ADDRESS=0
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    connections: u32,

    /// Connections from which on the growth of memory is measured [default: a tenth of them]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    base: Option<u32>,

    /// Keep alive, in seconds
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u16).range(5..=3600))]
    keep_alive: u16,

    /// Seconds that are measured
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    connections: u32,
    base: u32,
    keep_alive: u16,
    base_memory: Option<Memory>,
    memory: Option<Memory>,
    bytes_per_connection: Option<f64>,
    pings: u64,
    /// Of one core, in percent.
    server_cpu_percent: Option<f64>,
    cost: Cost,
}

/// Nobody says anything that would have to be answered.
struct Silence;

impl Script for Silence {}

pub fn run(args: &IdleArgs) -> Result<(), Failure> {
    let base = args.base.unwrap_or(args.connections.div_ceil(10));
    if base >= args.connections {
        return Err(Failure::Usage("--base: fewer than --connections".into()));
    }
    let mut swarm = Swarm::new(args.target.resolve()?)?;
    let mut progress = Progress::new(args.target.json);
    let login = |nth: usize| Login {
        client_id: format!("bench-{nth}"),
        user_name: format!("bench-{nth}"),
        keep_alive: args.keep_alive,
        filters: vec![format!("rooms/bench-{}/signal", nth / 2)],
        qos: 1,
        ..Login::default()
    };
    let crowd = |swarm: &mut Swarm, size: u32, progress: &mut Progress| {
        swarm.gather(size as usize, &mut Silence, progress, login)?;
        stay(swarm, SETTLE, None, progress)?;
        args.target.pid.map(memory).transpose()
    };
    let base_memory = crowd(&mut swarm, base, &mut progress)?;
    let memory = crowd(&mut swarm, args.connections, &mut progress)?;
    let meter = Meter::start(args.target.pid)?;
    let every = Duration::from_secs(args.keep_alive.into()) / args.connections;
    let pings = stay(&mut swarm, Duration::from_secs(args.seconds), Some(every), &mut progress)?;
    let cost = meter.read()?;
    drop(progress);

    let more = f64::from(args.connections - base);
    let growth = base_memory.zip(memory).map(|(base, all)| (all.pss as f64 - base.pss as f64) / more);
    let report = Report {
        workload: "idle",
        url: &args.target.url,
        connections: args.connections,
        base,
        keep_alive: args.keep_alive,
        base_memory,
        memory,
        bytes_per_connection: growth,
        pings,
        server_cpu_percent: cost.server_cpu_seconds.map(|cpu| 100.0 * cpu / cost.seconds),
        cost,
    };
    let mut rows = vec![("connections", args.connections.to_string())];
    rows.extend(growth.map(|bytes| ("memory of each", format!("{bytes:.0} bytes"))));
    rows.extend(report.server_cpu_percent.map(|share| ("broker, idle", format!("{share:.2} % of a core"))));
    rows.extend(cost_rows(&cost, pings, "ping"));
    report::print(args.target.json, &report, &rows)
}

/// Lets time pass; one client after the other pings, one `every` so often. Returns how many pings that were.
fn stay(swarm: &mut Swarm, during: Duration, every: Option<Duration>, progress: &mut Progress) -> Result<u64, Failure> {
    let mut events = events();
    let start = Instant::now();
    let (end, mut pings) = (start + during, 0);
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(pings);
        }
        while let Some(every) = every
            && start + every.mul_f64(pings as f64) <= now
        {
            swarm.ping(pings as usize % swarm.ready());
            pings += 1;
        }
        swarm.turn(&mut events, &mut Silence, Duration::from_millis(10))?;
        progress.tick(now, || format!("{} connected, {} s to go", swarm.ready(), (end - now).as_secs()));
    }
}
