//! `wigwag watch`: a room live, a line for each message: who says what to whom.

mod line;

use std::io::{ErrorKind, Write, stdout};
use std::time::{Duration, SystemTime};

use clap::Args;
use rumqttc::QoS;
use tokio::time::timeout;
use wigwag::auth::valid_name;

use super::client::{ClientArgs, Event, Link};
use super::terminal::escape;
use super::{Failure, block_on};
use line::Line;

/// Offers and answers show that they are, and how large; what is in them only with --payload. The QoS is that of the
/// delivery, the time in ms how long the message took from the server to here (by both machines' clocks). Watching takes a token with the role observe, and joins nothing.
#[derive(Args)]
pub struct WatchArgs {
    /// Name of the room
    room: String,

    #[command(flatten)]
    client: ClientArgs,

    /// Print each payload as well
    #[arg(long)]
    payload: bool,

    /// Exit after this many messages
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Exit after this many seconds
    #[arg(short = 'W', long, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    timeout: Option<u64>,
}

pub fn run(args: WatchArgs) -> Result<(), Failure> {
    if !valid_name(&args.room) {
        let rule = "a room's name has 1 to 64 bytes and none of / + # or control characters";
        return Err(Failure::Usage(format!("{:?}: {rule}", args.room)));
    }
    let link = Link::new(&args.client, "watch")?;
    block_on(watch(link, &args))
}

async fn watch(mut link: Link, args: &WatchArgs) -> Result<(), Failure> {
    let limit = args.timeout.map_or(Duration::MAX, Duration::from_secs);
    tokio::select! {
        ended = timeout(limit, print_lines(&mut link, args)) => ended.unwrap_or(Ok(()))?,
        _ = tokio::signal::ctrl_c() => {}
    }
    link.disconnect().await
}

async fn print_lines(link: &mut Link, args: &WatchArgs) -> Result<(), Failure> {
    let filter = format!("rooms/{}/#", args.room);
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        match link.next().await? {
            Event::Connected => link.subscribe(std::slice::from_ref(&filter), QoS::AtLeastOnce).await?,
            Event::Subscribed(refusals) => {
                if let Some(reason) = refusals.into_iter().flatten().next() {
                    let hint = "to watch a room takes a token with the role observe";
                    return Err(Failure::Runtime(format!("{filter}: refused: {reason}; {hint}")));
                }
            }
            Event::Message(message) => {
                seen += 1;
                let mut text = Line::of(&message, SystemTime::now()).to_string();
                if args.payload {
                    text += &format!("    {}\n", escape(&message.payload));
                }
                match stdout().write_all(text.as_bytes()) {
                    // Whoever read has read enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(|error| Failure::Runtime(format!("standard output: {error}")))?,
                }
            }
            Event::Sent | Event::Acknowledged(_) | Event::Disconnected => {}
        }
    }
    Ok(())
}
