//! `wigwag bench presence`: members who come to rooms and leave them, and everybody else who is told.
//!
//! Every member has the whole roster (`rooms/{room}/presence/+`). In each room one after the other leaves, by
//! unsubscribing from the signal topic, and comes back, by subscribing; the next change is made when all the others have
//! heard of this one. With `--roster server` the broker makes the roster out of that, as Wigwag does. With
//! `--roster client` members write it themselves, as applications do elsewhere: a retained message when they come, its
//! removal when they leave (and a will for the worst, which is not exercised here).

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use wigwag::wire::mqtt::{Publish, QoS};

use super::Failure;
use super::histogram::{Latencies, Percentiles};
use super::peer::Login;
use super::process::{Cost, Meter};
use super::report::{self, Progress, cost_rows, micros_each};
use super::swarm::{PATIENCE, Script, Swarm, events};
use super::target::{TargetArgs, TimesArgs};

#[derive(Args)]
pub struct PresenceArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Rooms in which somebody comes or leaves at the same time
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rooms: u32,

    /// Members of each
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,

    /// Who writes the roster
    #[arg(long, value_enum, default_value_t = Roster::Server)]
    roster: Roster,

    #[command(flatten)]
    times: TimesArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Roster {
    /// The broker, by who is subscribed to the room's signal topic
    Server,
    /// The members, by retained messages: for brokers that know no rooms
    Client,
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    rooms: u32,
    members: u32,
    roster: Roster,
    /// Of the whole run.
    lost: u64,
    /// Of the measured seconds.
    changes: u64,
    delivered: u64,
    deliveries_per_second: f64,
    latency_us: Percentiles,
    server_cpu_us_per_delivery: Option<f64>,
    server_cpu_us_per_change: Option<f64>,
    generator_cpu_us_per_delivery: f64,
    cost: Cost,
}

struct Rosters {
    rooms: Vec<Room>,
    members: usize,
    roster: Roster,
    /// Whether changes are made.
    moving: bool,
    changes: u64,
    delivered: u64,
    lost: u64,
    latencies: Latencies,
}

struct Room {
    /// Which member's turn it is, and whether it has left.
    mover: usize,
    left: bool,
    /// Members who have yet to hear of it.
    awaited: usize,
    changed: Instant,
}

pub fn run(args: &PresenceArgs) -> Result<(), Failure> {
    let mut swarm = Swarm::new(args.target.resolve()?)?;
    let mut progress = Progress::new(args.target.json);
    let mut rosters = Rosters::new(args);
    let members = rosters.members;
    swarm.gather(members * rosters.rooms.len(), &mut rosters, &mut progress, |nth| login(nth, members))?;
    rosters.begin(&mut swarm)?;
    rosters.go_on(&mut swarm, args.times.warmup(), &mut progress)?;
    rosters.latencies.clear();
    let before = (rosters.changes, rosters.delivered);
    let meter = Meter::start(args.target.pid)?;
    rosters.go_on(&mut swarm, args.times.measured(), &mut progress)?;
    let cost = meter.read()?;
    drop(progress);
    if rosters.delivered == 0 {
        let why = match args.roster {
            Roster::Server => "nobody was told of anybody: this broker makes no roster; try --roster client",
            Roster::Client => "nobody was told of anybody",
        };
        return Err(Failure::Runtime(why.into()));
    }

    let (changes, delivered) = (rosters.changes - before.0, rosters.delivered - before.1);
    let latency_us = rosters.latencies.percentiles();
    let server_each = |count| cost.server_cpu_seconds.map(|cpu| micros_each(cpu, count));
    let report = Report {
        workload: "presence",
        url: &args.target.url,
        rooms: args.rooms,
        members: args.members,
        roster: args.roster,
        lost: rosters.lost,
        changes,
        delivered,
        deliveries_per_second: delivered as f64 / cost.seconds,
        latency_us,
        server_cpu_us_per_delivery: server_each(delivered),
        server_cpu_us_per_change: server_each(changes),
        generator_cpu_us_per_delivery: micros_each(cost.generator_cpu_seconds, delivered),
        cost,
    };
    let mut rows = vec![
        ("changes", changes.to_string()),
        ("delivered", format!("{delivered} ({:.0} a second)", report.deliveries_per_second)),
        ("lost", report.lost.to_string()),
    ];
    rows.extend(latency_us.rows());
    rows.extend(cost_rows(&cost, delivered, "delivery"));
    report::print(args.target.json, &report, &rows)
}

/// Clients are numbered in the order of rooms.
fn login(nth: usize, members: usize) -> Login {
    let (room, user_name) = (nth / members, user(nth));
    let filters = vec![format!("rooms/bench-{room}/presence/+"), signal(room)];
    Login { client_id: user_name.clone(), user_name, filters, qos: 1, ..Login::default() }
}

fn user(nth: usize) -> String {
    format!("p-{nth:06}")
}

fn signal(room: usize) -> String {
    format!("rooms/bench-{room}/signal")
}

impl Rosters {
    fn new(args: &PresenceArgs) -> Self {
        let room = || Room { mover: 0, left: false, awaited: 0, changed: Instant::now() };
        Self {
            rooms: std::iter::repeat_with(room).take(args.rooms as usize).collect(),
            members: args.members as usize,
            roster: args.roster,
            moving: false,
            changes: 0,
            delivered: 0,
            lost: 0,
            latencies: Latencies::new(),
        }
    }

    /// Makes the first changes, once what the gathering had brought about is heard.
    fn begin(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        let (mut events, mut quiet) = (events(), Instant::now());
        let mut heard = 0;
        while quiet.elapsed() < Duration::from_millis(300) {
            swarm.turn(&mut events, self, Duration::from_millis(20))?;
            if heard != self.delivered {
                (heard, quiet) = (self.delivered, Instant::now());
            }
        }
        (self.moving, self.delivered) = (true, 0);
        (0..self.rooms.len()).for_each(|room| self.change(swarm, room));
        Ok(())
    }

    /// Whoever's turn it is leaves, or comes back and makes it the next one's turn.
    fn change(&mut self, swarm: &mut Swarm, index: usize) {
        let room = &mut self.rooms[index];
        if room.left {
            room.left = false;
        } else {
            room.mover = (room.mover + 1) % self.members;
            room.left = true;
        }
        room.awaited = self.members - 1;
        room.changed = Instant::now();
        self.changes += 1;
        let (id, left) = (index * self.members + room.mover, room.left);
        let writes = |swarm: &mut Swarm, entry: &str| {
            if self.roster == Roster::Client {
                let topic = format!("rooms/bench-{index}/presence/{}", user(id));
                swarm.retain(id, &topic, QoS::AtLeastOnce, entry.as_bytes());
            }
        };
        // While it is in the room, whatever the broker makes of that.
        if left {
            writes(swarm, "");
            swarm.unsubscribe(id, &signal(index));
        } else {
            swarm.subscribe(id, signal(index), 1);
            writes(swarm, &format!(r#"{{"user":"{}","joined":1790000000}}"#, user(id)));
        }
    }

    fn go_on(&mut self, swarm: &mut Swarm, during: Duration, progress: &mut Progress) -> Result<(), Failure> {
        let mut events = events();
        let start = Instant::now();
        let (end, mut patrol) = (start + during, start + PATIENCE);
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            swarm.turn(&mut events, self, Duration::from_millis(50))?;
            if now >= patrol {
                patrol = now + PATIENCE;
                self.give_up(swarm, now);
            }
            progress.tick(now, || format!("{} delivered, {} s to go", self.delivered, (end - now).as_secs()));
        }
    }

    /// Rooms that wait for what was lost go on without it.
    fn give_up(&mut self, swarm: &mut Swarm, now: Instant) {
        for room in 0..self.rooms.len() {
            if now.saturating_duration_since(self.rooms[room].changed) > PATIENCE {
                self.lost += self.rooms[room].awaited as u64;
                self.change(swarm, room);
            }
        }
    }
}

impl Script for Rosters {
    fn message(&mut self, swarm: &mut Swarm, id: usize, publish: &Publish<'_>) -> Result<(), Failure> {
        self.delivered += 1;
        let index = id / self.members;
        let room = &mut self.rooms[index];
        let mover = index * self.members + room.mover;
        let about_mover = publish.topic.rsplit('/').next().is_some_and(|about| about == user(mover));
        // What was said of the same member before its coming or leaving comes no more: the order is kept.
        let of_now = about_mover && publish.payload.is_empty() == room.left;
        if !self.moving || id == mover || !of_now {
            return Ok(());
        }
        self.latencies.record(swarm.now.saturating_duration_since(room.changed));
        room.awaited = room.awaited.saturating_sub(1);
        if room.awaited == 0 {
            self.change(swarm, index);
        }
        Ok(())
    }
}
