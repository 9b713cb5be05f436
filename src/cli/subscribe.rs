//! `wigwag sub`: messages as they come, one line each.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::time::Duration;

use clap::Args;
use rumqttc::QoS;
use tokio::time::timeout;

use super::client::{ClientArgs, Event, Link, Message, qos};
use super::terminal::escape;
use super::{Failure, block_on};

#[derive(Args)]
pub struct SubArgs {
    #[command(flatten)]
    client: ClientArgs,

    /// Topic filter; may be repeated
    #[arg(short, long, required = true)]
    topic: Vec<String>,

    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,

    /// Print the topic before each payload
    #[arg(short, long)]
    verbose: bool,

    /// Exit after this many messages
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Exit after this many seconds: in failure if --count messages were asked for and have not come
    #[arg(short = 'W', long, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    timeout: Option<u64>,
}

pub fn run(args: SubArgs) -> Result<(), Failure> {
    let valid = |filter: &String| rumqttc::valid_filter(filter) && filter.len() <= usize::from(u16::MAX);
    if let Some(filter) = args.topic.iter().find(|filter| !valid(filter)) {
        let rule = "a filter has 1 to 65535 bytes, + stands for a whole level, # for all that follow";
        return Err(Failure::Usage(format!("--topic {filter:?}: {rule}")));
    }
    let link = Link::new(&args.client, "sub")?;
    block_on(subscribe(link, &args))
}

/// Subscribes and prints until there was enough of it: messages, time, an interrupt, or a reader.
async fn subscribe(mut link: Link, args: &SubArgs) -> Result<(), Failure> {
    let limit = args.timeout.map_or(Duration::MAX, Duration::from_secs);
    let mut seen = 0;
    let ended = tokio::select! {
        ended = timeout(limit, print_messages(&mut link, args, &mut seen)) => ended,
        _ = tokio::signal::ctrl_c() => Ok(Ok(())),
    };
    match (ended, args.count) {
        (Ok(result), _) => result?,
        (Err(_), None) => {}
        (Err(_), Some(count)) => {
            let limit = limit.as_secs();
            return Err(Failure::Runtime(format!("{seen} of {count} messages within {limit} seconds")));
        }
    }
    link.disconnect().await
}

async fn print_messages(link: &mut Link, args: &SubArgs, seen: &mut u64) -> Result<(), Failure> {
    let safe = stdout().is_terminal();
    while args.count.is_none_or(|count| *seen < count) {
        match link.next().await? {
            Event::Connected => link.subscribe(&args.topic, args.qos).await?,
            Event::Subscribed(refusals) => report_refusals(&args.topic, &refusals)?,
            Event::Message(Message { topic, payload, .. }) => {
                *seen += 1;
                let line = line(args.verbose.then_some(&topic), &payload, safe);
                match stdout().write_all(&line) {
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

/// Says which filters were refused; without any left there is nothing to wait for.
fn report_refusals(filters: &[String], refusals: &[Option<String>]) -> Result<(), Failure> {
    let refused = filters.iter().zip(refusals).filter_map(|(filter, refusal)| Some((filter, refusal.as_ref()?)));
    let lines: Vec<_> = refused.map(|(filter, reason)| format!("{filter}: refused: {reason}")).collect();
    if lines.len() == filters.len() {
        return Err(Failure::Runtime(lines.join("\n")));
    }
    for line in lines {
        eprintln!("{line}");
    }
    Ok(())
}

fn line(topic: Option<&bytes::Bytes>, payload: &[u8], safe: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(payload.len() + 1);
    let mut put = |bytes: &[u8]| if safe { line.extend(escape(bytes).into_bytes()) } else { line.extend(bytes) };
    if let Some(topic) = topic {
        put(topic);
        put(b" ");
    }
    put(payload);
    line.push(b'\n');
    line
}
