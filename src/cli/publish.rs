//! `wigwag pub`: one message, and whether the broker took it.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use rumqttc::QoS;

use super::client::{ClientArgs, Event, Link, qos};
use super::{Failure, block_on};

#[derive(Args)]
pub struct PubArgs {
    #[command(flatten)]
    client: ClientArgs,

    /// Topic
    #[arg(short, long)]
    topic: String,

    /// Payload [default: standard input to its end]
    #[arg(short, long, conflicts_with = "file")]
    message: Option<String>,

    /// File with the payload
    #[arg(short, long)]
    file: Option<PathBuf>,

    /// QoS: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,

    /// Retain
    #[arg(short, long)]
    retain: bool,
}

pub fn run(args: PubArgs) -> Result<(), Failure> {
    if !rumqttc::valid_topic(&args.topic) || args.topic.is_empty() || args.topic.len() > usize::from(u16::MAX) {
        return Err(Failure::Usage(format!("--topic {:?}: a topic has 1 to 65535 bytes and no + or #", args.topic)));
    }
    let link = Link::new(&args.client, "pub")?;
    let payload = payload(args.message, args.file)?;
    block_on(publish(link, &args.topic, args.qos, args.retain, payload))
}

fn payload(message: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    match (message, file) {
        (Some(message), _) => Ok(message.into_bytes()),
        (None, Some(path)) => {
            std::fs::read(&path).map_err(|error| Failure::Usage(format!("--file {}: {error}", path.display())))
        }
        (None, None) => {
            let mut payload = Vec::new();
            let read = std::io::stdin().read_to_end(&mut payload);
            read.map(|_| payload).map_err(|error| Failure::Runtime(format!("standard input: {error}")))
        }
    }
}

async fn publish(mut link: Link, topic: &str, qos: QoS, retain: bool, payload: Vec<u8>) -> Result<(), Failure> {
    while !matches!(link.next().await?, Event::Connected) {}
    link.publish(topic, qos, retain, payload).await?;
    loop {
        match link.next().await? {
            Event::Sent if qos == QoS::AtMostOnce => break,
            Event::Acknowledged(Ok(())) => break,
            Event::Acknowledged(Err(reason)) => return Err(Failure::Runtime(format!("{topic}: refused: {reason}"))),
            _ => {}
        }
    }
    link.disconnect().await
}
