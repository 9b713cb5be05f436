//! `wigwag bench`: load for any MQTT broker, and what it cost.
//!
//! Everything is said with this broker's own codec over plain non-blocking sockets in one thread, so that a generator
//! on one core saturates a broker on another. What a run reports is counted at the receivers: a message is delivered
//! when its PUBLISH has arrived, and what was sent and never arrived is lost.

mod call;
mod churn;
mod connect;
mod fanout;
mod floor;
mod histogram;
mod idle;
mod outbox;
mod payload;
mod peer;
mod presence;
mod process;
mod report;
mod stream;
mod swarm;
mod target;

use clap::{Args, Subcommand};

use super::Failure;

#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Calls in rooms of two: offers, answers and candidates through the room's signal topic
    Call(call::CallArgs),
    /// Clients that come, subscribe to a room, and go
    Connect(connect::ConnectArgs),
    /// One room in which everybody hears everything
    Fanout(fanout::FanoutArgs),
    /// Rooms that are opened, used and abandoned
    Churn(churn::ChurnArgs),
    /// Connections that do nothing but stay
    Idle(idle::IdleArgs),
    /// Members who come to rooms and leave them, and everybody else who is told
    Presence(presence::PresenceArgs),
    /// Serve as the floor: a relay that does only what cannot be avoided, to compare brokers with
    Floor(floor::FloorArgs),
}

pub fn run(args: BenchArgs) -> Result<(), Failure> {
    match args.workload {
        Workload::Call(args) => call::run(&args),
        Workload::Connect(args) => connect::run(&args),
        Workload::Fanout(args) => fanout::run(&args),
        Workload::Churn(args) => churn::run(&args),
        Workload::Idle(args) => idle::run(&args),
        Workload::Presence(args) => presence::run(&args),
        Workload::Floor(args) => floor::run(&args),
    }
}
