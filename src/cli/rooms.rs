//! `wigwag rooms` and `wigwag room`: what rooms there are, and who is in one.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _, stdout};
use std::time::SystemTime;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Failure;
use super::api::{Api, ApiArgs, level};
use super::terminal::{escape, span};

#[derive(Args)]
pub struct RoomsArgs {
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Args)]
pub struct RoomArgs {
    /// Name of the room
    room: String,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Deserialize)]
struct Page {
    rooms: Vec<Summary>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Summary {
    name: String,
    members: usize,
    locked: bool,
    limit: Option<usize>,
    seconds: u64,
}

#[derive(Deserialize)]
struct Room {
    #[serde(flatten)]
    room: Summary,
    roster: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    username: String,
    instance: String,
    since: String,
    meta: Option<Value>,
}

/// Lists all rooms, page by page.
pub fn rooms(args: &RoomsArgs) -> Result<(), Failure> {
    let api = Api::new(&args.api)?;
    let mut rows = vec![["ROOM", "MEMBERS", "OPEN FOR", ""].map(String::from)];
    let mut after = String::new();
    loop {
        let page: Page = api.get(&format!("/rooms?limit=1000{after}"))?;
        rows.extend(page.rooms.iter().map(|room| [shown(&room.name), room.count(), span(room.seconds), room.lock()]));
        match page.next {
            Some(next) => after = format!("&after={}", level(&next)),
            None => break,
        }
    }
    print(&table(&rows))
}

/// Shows one room.
pub fn room(args: &RoomArgs) -> Result<(), Failure> {
    let Room { room, roster } = Api::new(&args.api)?.get(&format!("/rooms/{}", level(&args.room)))?;
    let mut text = format!("{}: {} members, open for {}", shown(&room.name), room.count(), span(room.seconds));
    text += if room.locked { ", locked\n" } else { "\n" };
    let mut rows = vec![["USER", "HERE FOR", "INSTANCE", "META"].map(String::from)];
    let meta = |member: &Member| member.meta.as_ref().map(|meta| shown(&meta.to_string())).unwrap_or_default();
    rows.extend(roster.iter().map(|one| [shown(&one.username), one.stay(), shown(&one.instance), meta(one)]));
    text += &table(&rows);
    print(&text)
}

impl Summary {
    fn count(&self) -> String {
        self.limit.map_or_else(|| self.members.to_string(), |limit| format!("{} of {limit}", self.members))
    }

    fn lock(&self) -> String {
        if self.locked { "locked".into() } else { String::new() }
    }
}

impl Member {
    fn stay(&self) -> String {
        let since = OffsetDateTime::parse(&self.since, &Rfc3339).map(SystemTime::from).ok();
        let stay = since.map(|since| SystemTime::now().duration_since(since).unwrap_or_default());
        stay.map_or_else(|| shown(&self.since), |stay| span(stay.as_secs()))
    }
}

fn shown(text: &str) -> String {
    escape(text.as_bytes())
}

/// Columns as wide as what is in them.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = write!(line, "{cell:width$}  ", width = width(column));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn print(text: &str) -> Result<(), Failure> {
    match stdout().write_all(text.as_bytes()) {
        // Whoever read has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::Runtime(format!("standard output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [["ROOM", "MEMBERS"], ["grün", "2"], ["x", "10 of 12"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "ROOM  MEMBERS\ngrün  2\nx     10 of 12\n");
    }
}
