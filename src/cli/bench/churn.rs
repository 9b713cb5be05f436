//! `wigwag bench churn`: rooms that are opened, used and abandoned, by the hundred thousand.
//!
//! In each room two clients exchange an offer, an answer and two candidates. They are always the same clients, who
//! subscribe and unsubscribe, or two new ones with random client ids for every room. What a broker keeps of rooms and
//! clients that are gone shows as a message that costs more at the end than at the beginning, and as memory.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;
use wigwag::wire::mqtt::{Publish, QoS};

use super::Failure;
use super::payload::{Kind, Payloads, parse};
use super::peer::Login;
use super::process::{Memory, Meter, memory};
use super::report::{self, Progress, micros_each};
use super::swarm::{PATIENCE, Script, Swarm, events};
use super::target::TargetArgs;

const SCRIPT: [Kind; 4] = [Kind::Offer, Kind::Answer, Kind::Candidate, Kind::Candidate];
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct ChurnArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Rooms in all
    #[arg(long, default_value = "200000", value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    rooms: u32,

    /// Rooms that are open at the same time
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,

    /// Who uses them
    #[arg(long, value_enum, default_value_t = Clients::Pooled)]
    clients: Clients,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Clients {
    /// The same clients go from room to room
    Pooled,
    /// Two new clients for each room
    New,
}

#[derive(Serialize)]
struct Report<'a> {
    workload: &'static str,
    url: &'a str,
    clients: Clients,
    rooms: u32,
    rooms_per_second: f64,
    /// Of the first and the last tenth of the rooms.
    first_server_cpu_us_per_message: Option<f64>,
    last_server_cpu_us_per_message: Option<f64>,
    /// After the first hundredth of the rooms, and when all are abandoned.
    memory_before: Option<Memory>,
    memory_after: Option<Memory>,
}

struct Churn {
    clients: Clients,
    pairs: Vec<Pair>,
    /// Which pair a client is of, by its number, and which side.
    places: Vec<(usize, usize)>,
    payloads: Payloads,
    began: Instant,
    opened: u32,
    rooms: u32,
    closed: u32,
    names: RandomState,
}

struct Pair {
    topic: String,
    ids: [usize; 2],
    users: [String; 2],
    ready: usize,
    said: usize,
}

pub fn run(args: &ChurnArgs) -> Result<(), Failure> {
    let mut swarm = Swarm::new(args.target.resolve()?)?;
    let mut progress = Progress::new(args.target.json);
    let pid = args.target.pid;
    let mut churn = Churn {
        clients: args.clients,
        pairs: Vec::new(),
        places: Vec::new(),
        payloads: Payloads::new(),
        began: Instant::now(),
        opened: 0,
        rooms: args.rooms,
        closed: 0,
        names: RandomState::new(),
    };
    for pair in 0..args.concurrency.min(args.rooms) as usize {
        churn.enter(&mut swarm, pair)?;
    }
    let tenth = args.rooms / 10;
    let whole = Instant::now();
    churn.until(&mut swarm, args.rooms / 100, &mut progress)?;
    let memory_before = pid.map(memory).transpose()?;
    let first = churn.measure(&mut swarm, pid, tenth, &mut progress)?;
    churn.until(&mut swarm, args.rooms - tenth, &mut progress)?;
    let last = churn.measure(&mut swarm, pid, args.rooms, &mut progress)?;
    let seconds = whole.elapsed().as_secs_f64();
    churn.settle(&mut swarm)?;
    drop(progress);
    let report = Report {
        workload: "churn",
        url: &args.target.url,
        clients: args.clients,
        rooms: args.rooms,
        rooms_per_second: f64::from(args.rooms) / seconds,
        first_server_cpu_us_per_message: first,
        last_server_cpu_us_per_message: last,
        memory_before,
        memory_after: pid.map(memory).transpose()?,
    };
    let mut rows = vec![("rooms", format!("{} ({:.0} a second)", args.rooms, report.rooms_per_second))];
    let each = |cpu: f64| format!("{cpu:.1} µs CPU of the broker a message");
    rows.extend(first.map(|cpu| ("first tenth", each(cpu))));
    rows.extend(last.map(|cpu| ("last tenth", each(cpu))));
    let mebibytes = |memory: Memory| format!("{:.1} MiB resident", memory.rss as f64 / f64::from(1 << 20));
    rows.extend(report.memory_before.map(|memory| ("memory before", mebibytes(memory))));
    rows.extend(report.memory_after.map(|memory| ("memory after", mebibytes(memory))));
    report::print(args.target.json, &report, &rows)
}

impl Churn {
    /// A pair goes into the next room.
    fn enter(&mut self, swarm: &mut Swarm, pair: usize) -> Result<(), Failure> {
        let topic = format!("rooms/{:016x}/signal", self.names.hash_one(self.opened));
        self.opened += 1;
        if pair == self.pairs.len() || self.clients == Clients::New {
            let users = ["a", "b"].map(|side| format!("{side}-{:06}", self.opened % 1_000_000));
            let mut ids = [0; 2];
            for (side, user_name) in users.iter().enumerate() {
                let client_id = format!("{:016x}", self.names.hash_one((side, self.opened)));
                let (user_name, filters) = (user_name.clone(), vec![topic.clone()]);
                ids[side] =
                    swarm.open(Login { client_id, user_name, keep_alive: 60, filters, qos: 1, ..Login::default() })?;
                self.places.resize(self.places.len().max(ids[side] + 1), (0, 0));
                self.places[ids[side]] = (pair, side);
            }
            let entered = Pair { topic, ids, users, ready: 0, said: 0 };
            match self.pairs.get_mut(pair) {
                Some(left) => *left = entered,
                None => self.pairs.push(entered),
            }
        } else {
            let pair = &mut self.pairs[pair];
            (pair.topic, pair.ready, pair.said) = (topic, 0, 0);
            pair.ids.iter().for_each(|id| swarm.subscribe(*id, pair.topic.clone(), 1));
        }
        Ok(())
    }

    /// A pair has said everything.
    fn leave(&mut self, swarm: &mut Swarm, pair: usize) -> Result<(), Failure> {
        let left = &self.pairs[pair];
        for id in left.ids {
            match self.clients {
                Clients::Pooled => swarm.unsubscribe(id, &left.topic),
                Clients::New => swarm.close(id),
            }
        }
        self.closed += 1;
        if self.opened < self.rooms { self.enter(swarm, pair) } else { Ok(()) }
    }

    fn speak(&mut self, swarm: &mut Swarm, pair: usize) {
        let pair = &mut self.pairs[pair];
        let side = pair.said % 2;
        let at = self.began.elapsed();
        let payload = self.payloads.fill(SCRIPT[pair.said], &pair.users[side], pair.said as u64, at);
        swarm.publish(pair.ids[side], &pair.topic, QoS::AtLeastOnce, payload);
        pair.said += 1;
    }

    /// Goes on until that many rooms are abandoned.
    fn until(&mut self, swarm: &mut Swarm, closed: u32, progress: &mut Progress) -> Result<(), Failure> {
        let mut events = events();
        let (mut last, mut since) = (self.closed, Instant::now());
        while self.closed < closed {
            swarm.turn(&mut events, self, Duration::from_millis(50))?;
            let now = Instant::now();
            progress.tick(now, || format!("{} of {} rooms", self.closed, self.rooms));
            if self.closed > last {
                (last, since) = (self.closed, now);
            } else if now - since > PATIENCE {
                return Err(Failure::Runtime(format!("{last} rooms were used, then nothing more")));
            }
        }
        Ok(())
    }

    /// The same, and says what a message cost the broker.
    fn measure(
        &mut self,
        swarm: &mut Swarm,
        pid: Option<u32>,
        closed: u32,
        progress: &mut Progress,
    ) -> Result<Option<f64>, Failure> {
        let (meter, before) = (Meter::start(pid)?, self.closed);
        self.until(swarm, closed, progress)?;
        let messages = u64::from(self.closed - before) * SCRIPT.len() as u64;
        Ok(meter.read()?.server_cpu_seconds.map(|cpu| micros_each(cpu, messages)))
    }

    /// Gives the broker time to forget.
    fn settle(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        let (mut events, start) = (events(), Instant::now());
        while start.elapsed() < SETTLE {
            swarm.turn(&mut events, self, Duration::from_millis(100))?;
        }
        Ok(())
    }
}

impl Script for Churn {
    fn ready(&mut self, swarm: &mut Swarm, id: usize) -> Result<(), Failure> {
        let (pair, _) = self.places[id];
        self.pairs[pair].ready += 1;
        if self.pairs[pair].ready == 2 {
            self.speak(swarm, pair);
        }
        Ok(())
    }

    fn message(&mut self, swarm: &mut Swarm, id: usize, publish: &Publish<'_>) -> Result<(), Failure> {
        let (index, side) = self.places[id];
        let pair = &self.pairs[index];
        let Some(said) = parse(publish.payload) else { return Ok(()) };
        // The sender's own, or what was said in the room before.
        if said.user == pair.users[side].as_bytes() || said.seq + 1 != pair.said as u64 || publish.topic != pair.topic {
            return Ok(());
        }
        if pair.said < SCRIPT.len() {
            self.speak(swarm, index);
            Ok(())
        } else {
            self.leave(swarm, index)
        }
    }
}
