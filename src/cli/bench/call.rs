//! `wigwag bench call`: an offer, an answer and ten candidates each way, again and again, in rooms of two.
//!
//! Both members subscribe to `rooms/{room}/signal` and publish there. In 3.1.1 the sender gets its own message back,
//! too; that is not counted as delivered. As fast as the broker can (closed loop: a room goes on when what it sent has
//! arrived), or at a rate (open loop: a message is sent when it is due, whatever became of those before, and its
//! latency counts from when it was due).

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use wigwag::wire::mqtt::{Publish, QoS};

use super::Failure;
use super::histogram::{Latencies, Percentiles};
use super::payload::{Kind, Payloads, parse};
use super::peer::Login;
use super::process::{Cost, Meter};
use super::report::{self, Progress, cost_rows, micros_each};
use super::swarm::{PATIENCE, Script, Swarm, events};
use super::target::{TargetArgs, TimesArgs};

/// Messages of one side of a call: a description and ten candidates.
const SIDE: u32 = 11;

#[derive(Args)]
pub struct CallArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Rooms in which calls are made at the same time, two clients each
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=500_000))]
    rooms: u32,

    #[command(flatten)]
    times: TimesArgs,

    /// QoS of messages and subscriptions: 0 or 1
    #[arg(short, long, default_value = "1", value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,

    /// How many messages of one side are sent at once
    #[arg(long, value_enum, default_value_t = Pattern::Group)]
    pattern: Pattern,

    /// Messages per second in all rooms together [default: as many as the broker delivers]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,

    /// Clients besides that hear everything, by the wildcard `rooms/+/signal` at QoS 0
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    observers: u32,

    /// Topics besides to which somebody is subscribed and nobody publishes, a thousand to a client
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    live_topics: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pattern {
    /// One, answered by one of the other side
    Single,
    /// Four, as candidates trickle in
    Group,
    /// All eleven
    Burst,
}

impl Pattern {
    pub(super) const fn size(self) -> u32 {
        match self {
            Self::Single => 1,
            Self::Group => 4,
            Self::Burst => SIDE,
        }
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|rate| (0.1..=1e7).contains(rate)).ok_or("0.1 to 10000000")
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    pattern: Pattern,
    qos: u8,
    rooms: u32,
    rate: Option<f64>,
    observers: u32,
    live_topics: u32,
    /// Of the whole run.
    sent: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    acknowledged: u64,
    /// Of the measured seconds.
    measured: u64,
    /// Messages that observers have received.
    observed: u64,
    messages_per_second: f64,
    latency_us: Percentiles,
    server_cpu_us_per_message: Option<f64>,
    /// The same for each message that anybody has received, observers too.
    server_cpu_us_per_delivery: Option<f64>,
    generator_cpu_us_per_message: f64,
    cost: Cost,
}

/// The clients of a run and what they have seen.
struct Calls {
    rooms: Vec<Room>,
    payloads: Payloads,
    qos: QoS,
    pattern: Pattern,
    /// Whether a room goes on by itself when what it sent has arrived.
    closed_loop: bool,
    began: Instant,
    sent: u64,
    delivered: u64,
    duplicated: u64,
    observed: u64,
    latencies: Latencies,
}

struct Room {
    topic: String,
    sides: [Side; 2],
    /// How many times somebody has spoken.
    turn: u32,
    /// Messages of this turn that have yet to arrive.
    awaited: u32,
    /// When the last one was sent or arrived.
    touched: Instant,
}

struct Side {
    client: usize,
    user: String,
    sent: u64,
    /// The other side has everything before this one.
    arrived: u64,
}

pub fn run(args: &CallArgs) -> Result<(), Failure> {
    let mut swarm = Swarm::new(args.target.resolve()?)?;
    let mut calls = Calls::new(args);
    let mut progress = Progress::new(args.target.json);
    let (members, observers) = (2 * calls.rooms.len(), args.observers as usize);
    let keepers = (args.live_topics as usize).div_ceil(KEPT);
    swarm.gather(members + observers + keepers, &mut calls, &mut progress, |nth| match nth.checked_sub(members) {
        None => login(nth, args.qos),
        Some(nth) if nth < observers => observer(nth),
        Some(nth) => keeper(nth - observers, args.live_topics as usize),
    })?;

    let mut pace = args.rate.map(|rate| Pace::new(rate, swarm.now));
    if pace.is_none() {
        (0..calls.rooms.len()).for_each(|room| calls.speak(&mut swarm, room, Instant::now()));
    }
    calls.keep_calling(&mut swarm, &mut pace, args.times.warmup(), &mut progress)?;
    calls.latencies.clear();
    let before = (calls.delivered, calls.observed);
    let meter = Meter::start(args.target.pid)?;
    calls.keep_calling(&mut swarm, &mut pace, args.times.measured(), &mut progress)?;
    let cost = meter.read()?;
    let measured = Measured { delivered: calls.delivered - before.0, observed: calls.observed - before.1 };
    let latency_us = calls.latencies.percentiles();
    calls.drain(&mut swarm)?;
    drop(progress);
    calls.report(args, measured, latency_us, cost, swarm.acknowledged)
}

/// Deliveries of the measured seconds.
#[derive(Clone, Copy)]
struct Measured {
    delivered: u64,
    observed: u64,
}

/// Subscriptions of a client that keeps topics alive.
const KEPT: usize = 1000;

fn observer(nth: usize) -> Login {
    let user_name = format!("o-{nth:06}");
    Login {
        client_id: format!("bench-{user_name}"),
        user_name,
        filters: vec!["rooms/+/signal".into()],
        ..Login::default()
    }
}

fn keeper(nth: usize, topics: usize) -> Login {
    let user_name = format!("k-{nth:06}");
    let filters = (nth * KEPT..topics.min((nth + 1) * KEPT)).map(|topic| format!("rooms/live-{topic}/chat")).collect();
    Login { client_id: format!("bench-{user_name}"), user_name, filters, ..Login::default() }
}

/// Clients are numbered in the order of rooms.
fn login(nth: usize, qos: u8) -> Login {
    let user_name = user(nth);
    Login {
        client_id: format!("bench-{user_name}"),
        user_name,
        keep_alive: 0,
        filters: vec![topic(nth / 2)],
        qos,
        ..Login::default()
    }
}

fn user(nth: usize) -> String {
    format!("{}-{:06}", ["a", "b"][nth % 2], nth / 2)
}

fn topic(room: usize) -> String {
    format!("rooms/bench-{room:06}/signal")
}

impl Calls {
    fn new(args: &CallArgs) -> Self {
        let now = Instant::now();
        let side = |nth| Side { client: nth, user: user(nth), sent: 0, arrived: 0 };
        let room = |room| Room {
            topic: topic(room),
            sides: [side(2 * room), side(2 * room + 1)],
            turn: 0,
            awaited: 0,
            touched: now,
        };
        Self {
            rooms: (0..args.rooms as usize).map(room).collect(),
            payloads: Payloads::new(),
            qos: QoS::from_bits(args.qos).unwrap_or(QoS::AtLeastOnce),
            pattern: args.pattern,
            closed_loop: args.rate.is_none(),
            began: now,
            sent: 0,
            delivered: 0,
            duplicated: 0,
            observed: 0,
            latencies: Latencies::new(),
        }
    }

    /// Whoever's turn it is in a room sends the next messages, which were due at `due`.
    fn speak(&mut self, swarm: &mut Swarm, room: usize, due: Instant) {
        let at = due - self.began;
        let room = &mut self.rooms[room];
        let (side, messages) = turn(room.turn, self.pattern);
        let speaker = &mut room.sides[side];
        for message in messages.clone() {
            let kind = match (message, side) {
                (0, 0) => Kind::Offer,
                (0, _) => Kind::Answer,
                _ => Kind::Candidate,
            };
            let payload = self.payloads.fill(kind, &speaker.user, speaker.sent, at);
            swarm.publish(speaker.client, &room.topic, self.qos, payload);
            speaker.sent += 1;
        }
        room.turn = room.turn.wrapping_add(1);
        room.awaited = messages.len() as u32;
        room.touched = due;
        self.sent += messages.len() as u64;
    }

    fn keep_calling(
        &mut self,
        swarm: &mut Swarm,
        pace: &mut Option<Pace>,
        during: Duration,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut events = events();
        let start = Instant::now();
        let (end, mut patrol) = (start + during, start + PATIENCE);
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let timeout = match pace {
                Some(pace) => pace.catch_up(now, |room, due| {
                    let room = room % self.rooms.len();
                    self.speak(swarm, room, due);
                    turn(self.rooms[room].turn.wrapping_sub(1), self.pattern).1.len()
                }),
                None => Duration::from_millis(50),
            };
            swarm.turn(&mut events, self, timeout)?;
            if self.closed_loop && now >= patrol {
                self.revive(swarm, now);
                patrol = now + PATIENCE;
            }
            progress.tick(now, || {
                let left = (end - now).as_secs();
                format!("{} delivered, {} on their way, {left} s to go", self.delivered, self.sent - self.delivered)
            });
        }
    }

    /// Rooms that wait for what was lost go on without it.
    fn revive(&mut self, swarm: &mut Swarm, now: Instant) {
        for room in 0..self.rooms.len() {
            if now.saturating_duration_since(self.rooms[room].touched) > PATIENCE {
                self.speak(swarm, room, now);
            }
        }
    }

    /// Waits for what is on its way, as long as something arrives.
    fn drain(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        self.closed_loop = false;
        let mut events = events();
        let (mut last, mut since) = (self.delivered, Instant::now());
        while self.delivered < self.sent && since.elapsed() < PATIENCE {
            swarm.turn(&mut events, self, Duration::from_millis(50))?;
            if self.delivered > last {
                (last, since) = (self.delivered, Instant::now());
            }
        }
        Ok(())
    }

    fn report(
        &self,
        args: &CallArgs,
        measured: Measured,
        latency_us: Percentiles,
        cost: Cost,
        acknowledged: u64,
    ) -> Result<(), Failure> {
        if self.delivered == 0 {
            let hint = "are the clients' names theirs, and may they publish and subscribe in rooms/bench-…?";
            return Err(Failure::Runtime(format!("{}: nothing that was sent arrived: {hint}", args.target.url)));
        }
        let (delivered, all) = (measured.delivered, measured.delivered + measured.observed);
        let report = Report {
            workload: "call",
            url: &args.target.url,
            pattern: args.pattern,
            qos: args.qos,
            rooms: args.rooms,
            rate: args.rate,
            observers: args.observers,
            live_topics: args.live_topics,
            sent: self.sent,
            delivered: self.delivered,
            lost: self.sent - self.delivered,
            duplicated: self.duplicated,
            acknowledged,
            measured: delivered,
            messages_per_second: delivered as f64 / cost.seconds,
            latency_us,
            observed: measured.observed,
            server_cpu_us_per_delivery: cost.server_cpu_seconds.map(|cpu| micros_each(cpu, all)),
            server_cpu_us_per_message: cost.server_cpu_seconds.map(|cpu| micros_each(cpu, delivered)),
            generator_cpu_us_per_message: micros_each(cost.generator_cpu_seconds, all),
            cost,
        };
        let mut rows = vec![
            ("delivered", format!("{delivered} ({:.0} a second)", report.messages_per_second)),
            ("lost", format!("{} of {}", report.lost, report.sent)),
            ("duplicated", report.duplicated.to_string()),
        ];
        rows.extend(latency_us.rows());
        if args.observers > 0 {
            rows.push(("observed", measured.observed.to_string()));
        }
        rows.extend(cost_rows(&cost, all, "message"));
        report::print(args.target.json, &report, &rows)
    }
}

impl Script for Calls {
    fn message(&mut self, swarm: &mut Swarm, id: usize, publish: &Publish<'_>) -> Result<(), Failure> {
        let Some(said) = parse(publish.payload) else { return Ok(()) };
        let (index, receiver) = (id / 2, id % 2);
        if index >= self.rooms.len() {
            self.observed += 1;
            return Ok(());
        }
        let room = &mut self.rooms[index];
        let speaker = &mut room.sides[1 - receiver];
        if said.user != speaker.user.as_bytes() {
            return Ok(()); // the sender's own
        }
        if said.seq < speaker.arrived {
            self.duplicated += 1;
            return Ok(());
        }
        speaker.arrived = said.seq + 1;
        self.delivered += 1;
        self.latencies.record((swarm.now - self.began).saturating_sub(said.at));
        room.touched = swarm.now;
        room.awaited = room.awaited.saturating_sub(1);
        if room.awaited == 0 && self.closed_loop {
            self.speak(swarm, index, swarm.now);
        }
        Ok(())
    }
}

/// Which side speaks at a turn, and which messages of its eleven: the sides take turns until both have sent theirs.
fn turn(turn: u32, pattern: Pattern) -> (usize, std::ops::Range<u32>) {
    let size = pattern.size();
    let first = turn / 2 % SIDE.div_ceil(size) * size;
    ((turn % 2) as usize, first..(first + size).min(SIDE))
}

/// When what is due in an open loop.
struct Pace {
    /// Between two messages.
    interval: Duration,
    next: Instant,
    room: usize,
}

impl Pace {
    /// What the kernel may oversleep: shorter waits are spent looking.
    const OVERSLEPT: Duration = Duration::from_millis(2);

    fn new(rate: f64, now: Instant) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / rate), next: now, room: 0 }
    }

    /// Sends everything that is due by `send`, which says how many messages that was. Returns how long to wait.
    fn catch_up(&mut self, now: Instant, mut send: impl FnMut(usize, Instant) -> usize) -> Duration {
        while self.next <= now {
            let messages = send(self.room, self.next);
            self.next += self.interval * messages as u32;
            self.room = self.room.wrapping_add(1);
        }
        (self.next - now).saturating_sub(Self::OVERSLEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_eleven_messages_each_way() {
        for pattern in [Pattern::Single, Pattern::Group, Pattern::Burst] {
            let turns = 2 * SIDE.div_ceil(pattern.size());
            for side in 0..2 {
                let said: Vec<u32> = (0..turns)
                    .map(|index| turn(index, pattern))
                    .filter(|(speaker, _)| *speaker == side)
                    .flat_map(|(_, messages)| messages)
                    .collect();
                assert_eq!(said, (0..SIDE).collect::<Vec<_>>(), "{pattern:?}");
            }
            assert_eq!(turn(turns, pattern), turn(0, pattern));
        }
    }

    #[test]
    fn an_open_loop_catches_up_with_what_it_was_late_for() {
        let start = Instant::now();
        let mut pace = Pace::new(1000.0, start);
        let mut due = Vec::new();
        let wait = pace.catch_up(start + Duration::from_millis(9), |room, at| {
            due.push((room, at - start));
            4
        });
        let millis = Duration::from_millis;
        assert_eq!(due, [(0, millis(0)), (1, millis(4)), (2, millis(8))]);
        assert_eq!(wait, millis(1));
    }
}
