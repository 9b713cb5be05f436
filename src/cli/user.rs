//! `wigwag user hash`: a password, as the file of users has it.

use std::io::{BufRead, IsTerminal, stdin};

use clap::{Args, Subcommand};
use wigwag::auth::hash_password;

use super::Failure;

#[derive(Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Read a password from standard input and print its hash, for `password = "…"` in the file of auth.users
    Hash,
}

pub fn run(args: &UserArgs) -> Result<(), Failure> {
    let UserCommand::Hash = args.command;
    if stdin().is_terminal() {
        eprint!("Password (it will be shown): ");
    }
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|error| Failure::Runtime(format!("standard input: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::Usage("an empty password is none".into()));
    }
    let hash = hash_password(password.as_bytes());
    println!("{}", hash.ok_or_else(|| Failure::Runtime("the system has no randomness to give".into()))?);
    Ok(())
}
