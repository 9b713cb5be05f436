//! The command line: what can be asked for, one file for each command.

mod api;
pub mod bench;
pub mod check;
mod client;
pub mod explain;
pub mod publish;
pub mod rooms;
pub mod serve;
mod settings;
pub mod subscribe;
mod terminal;
mod tls;
pub mod token;
pub mod user;
pub mod watch;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A WebRTC signaling server that speaks MQTT.
///
/// Without a command it serves.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub serve: settings::SettingsArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the broker; so does `wigwag` without a command
    Serve(settings::SettingsArgs),
    /// Validate a configuration, and print what is in effect and where it came from
    Check(settings::SettingsArgs),
    /// Publish one message to any MQTT broker
    Pub(publish::PubArgs),
    /// Print the messages of one or more topic filters of any MQTT broker
    Sub(subscribe::SubArgs),
    /// List the rooms of a server
    Rooms(rooms::RoomsArgs),
    /// Show a room and who is in it
    Room(rooms::RoomArgs),
    /// Watch a room live: who says what to whom
    Watch(watch::WatchArgs),
    /// Load any MQTT broker and measure what it does, and what that costs
    Bench(bench::BenchArgs),
    /// Mint a token, or `inspect` one
    Token(token::TokenArgs),
    /// Help with the file of users
    User(user::UserArgs),
    /// Say whether somebody may publish or subscribe there, and which row of the topic table decides
    Explain(explain::ExplainArgs),
}

/// Why a command did not do what it was asked for, in words for who typed it.
#[derive(Debug)]
pub enum Failure {
    /// It tried.
    Runtime(String),
    /// It could not even try.
    Usage(String),
}

impl Failure {
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Runtime(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Runtime(message) | Self::Usage(message)) = self;
        f.write_str(message)
    }
}

/// Runs a command's future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Runtime(format!("cannot start: {error}")))?.block_on(future)
}
