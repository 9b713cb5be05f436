//! The `wigwag` command.
//!
//! Exit codes: 0 done, 1 it failed while running (nobody listens there, the broker refused), 2 it was asked for
//! something that cannot be (usage, configuration).

mod allocator;
mod cli;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, bench, check, explain, publish, rooms, serve, subscribe, token, user, watch};

fn main() -> ExitCode {
    allocator::give_back_soon();
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Pub(args) => publish::run(args),
        Command::Sub(args) => subscribe::run(args),
        Command::Rooms(args) => rooms::rooms(&args),
        Command::Room(args) => rooms::room(&args),
        Command::Watch(args) => watch::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Token(args) => token::run(args),
        Command::User(args) => user::run(&args),
        Command::Explain(args) => explain::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}
