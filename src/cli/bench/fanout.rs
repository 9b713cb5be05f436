//! `wigwag bench fanout`: one room whose members speak in turn, and everybody hears everything.
//!
//! The next one speaks when everybody has what the one before said: one message or, as who begins a call does, several
//! at once.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use wigwag::wire::mqtt::{Publish, QoS};

use super::Failure;
use super::call::Pattern;
use super::histogram::{Latencies, Percentiles};
use super::payload::{Kind, Payloads, parse};
use super::peer::Login;
use super::process::{Cost, Meter};
use super::report::{self, Progress, cost_rows, micros_each};
use super::swarm::{PATIENCE, Script, Swarm, events};
use super::target::{TargetArgs, TimesArgs};

const TOPIC: &str = "rooms/bench/signal";
/// Whoever listens there is no member for that.
const LISTENED: &str = "rooms/bench/chat";

#[derive(Args)]
pub struct FanoutArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Members of the room
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(2..=500_000))]
    members: u32,

    #[command(flatten)]
    times: TimesArgs,

    /// QoS of messages and subscriptions: 0 or 1
    #[arg(short, long, default_value = "1", value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,

    /// How many messages a member says at once
    #[arg(long, value_enum, default_value_t = Pattern::Group)]
    pattern: Pattern,

    /// One member speaks, in the chat, and all the others only listen there
    #[arg(long)]
    listen_only: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    members: u32,
    pattern: Pattern,
    qos: u8,
    listen_only: bool,
    /// Of the whole run.
    lost: u64,
    /// Of the measured seconds.
    delivered: u64,
    deliveries_per_second: f64,
    latency_us: Percentiles,
    server_cpu_us_per_delivery: Option<f64>,
    generator_cpu_us_per_delivery: f64,
    cost: Cost,
}

struct Room {
    users: Vec<String>,
    topic: &'static str,
    speakers: usize,
    payloads: Payloads,
    qos: QoS,
    /// Messages that are said at once.
    at_once: u64,
    /// Messages said so far; the last one's number is one less.
    said: u64,
    /// Deliveries of the last ones that have yet to come.
    awaited: usize,
    touched: Instant,
    began: Instant,
    delivered: u64,
    lost: u64,
    latencies: Latencies,
}

pub fn run(args: &FanoutArgs) -> Result<(), Failure> {
    let mut swarm = Swarm::new(args.target.resolve()?)?;
    let mut progress = Progress::new(args.target.json);
    let mut room = Room::new(args);
    swarm.gather(room.users.len(), &mut room, &mut progress, |nth| login(nth, args))?;
    room.speak(&mut swarm);
    room.keep_talking(&mut swarm, args.times.warmup(), &mut progress)?;
    room.latencies.clear();
    let before = room.delivered;
    let meter = Meter::start(args.target.pid)?;
    room.keep_talking(&mut swarm, args.times.measured(), &mut progress)?;
    let cost = meter.read()?;
    drop(progress);

    let delivered = room.delivered - before;
    let latency_us = room.latencies.percentiles();
    let report = Report {
        workload: "fanout",
        url: &args.target.url,
        members: args.members,
        pattern: args.pattern,
        qos: args.qos,
        listen_only: args.listen_only,
        lost: room.lost,
        delivered,
        deliveries_per_second: delivered as f64 / cost.seconds,
        latency_us,
        server_cpu_us_per_delivery: cost.server_cpu_seconds.map(|cpu| micros_each(cpu, delivered)),
        generator_cpu_us_per_delivery: micros_each(cost.generator_cpu_seconds, delivered),
        cost,
    };
    let mut rows = vec![
        ("delivered", format!("{delivered} ({:.0} a second)", report.deliveries_per_second)),
        ("lost", report.lost.to_string()),
    ];
    rows.extend(latency_us.rows());
    rows.extend(cost_rows(&cost, delivered, "delivery"));
    report::print(args.target.json, &report, &rows)
}

fn login(nth: usize, args: &FanoutArgs) -> Login {
    let (user_name, qos) = (user(nth), args.qos);
    let speaks = if nth == 0 { vec![TOPIC.into(), LISTENED.into()] } else { vec![LISTENED.into()] };
    let filters = if args.listen_only { speaks } else { vec![TOPIC.into()] };
    Login { client_id: format!("bench-{user_name}"), user_name, filters, qos, ..Login::default() }
}

fn user(nth: usize) -> String {
    format!("m-{nth:06}")
}

impl Room {
    fn new(args: &FanoutArgs) -> Self {
        let now = Instant::now();
        Self {
            users: (0..args.members as usize).map(user).collect(),
            topic: if args.listen_only { LISTENED } else { TOPIC },
            speakers: if args.listen_only { 1 } else { args.members as usize },
            payloads: Payloads::new(),
            qos: QoS::from_bits(args.qos).unwrap_or(QoS::AtLeastOnce),
            at_once: args.pattern.size().into(),
            said: 0,
            awaited: 0,
            touched: now,
            began: now,
            delivered: 0,
            lost: 0,
            latencies: Latencies::new(),
        }
    }

    fn speak(&mut self, swarm: &mut Swarm) {
        let speaker = (self.said / self.at_once) as usize % self.speakers;
        let now = Instant::now();
        for said in self.said..self.said + self.at_once {
            let payload = self.payloads.fill(Kind::Candidate, &self.users[speaker], said, now - self.began);
            swarm.publish(speaker, self.topic, self.qos, payload);
        }
        self.said += self.at_once;
        self.awaited = (self.users.len() - 1) * self.at_once as usize;
        self.touched = now;
    }

    fn keep_talking(&mut self, swarm: &mut Swarm, during: Duration, progress: &mut Progress) -> Result<(), Failure> {
        let mut events = events();
        let end = Instant::now() + during;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            swarm.turn(&mut events, self, Duration::from_millis(50))?;
            if now.saturating_duration_since(self.touched) > PATIENCE {
                self.lost += self.awaited as u64;
                self.speak(swarm);
            }
            progress.tick(now, || format!("{} delivered, {} s to go", self.delivered, (end - now).as_secs()));
        }
    }
}

impl Script for Room {
    fn message(&mut self, swarm: &mut Swarm, id: usize, publish: &Publish<'_>) -> Result<(), Failure> {
        let Some(said) = parse(publish.payload) else { return Ok(()) };
        if !(self.said - self.at_once..self.said).contains(&said.seq) || said.user == self.users[id].as_bytes() {
            return Ok(()); // given up on, or the speaker's own
        }
        self.delivered += 1;
        self.latencies.record((swarm.now - self.began).saturating_sub(said.at));
        self.touched = swarm.now;
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited == 0 {
            self.speak(swarm);
        }
        Ok(())
    }
}
