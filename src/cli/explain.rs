//! `wigwag explain`: may this user publish or subscribe there, and which row of the topic table says so? Exit code 0:
//! yes, 1: no.

use std::net::{IpAddr, Ipv4Addr};

use clap::{Args, Subcommand};
use wigwag::auth::{Authenticator, Credentials, Identity};
use wigwag::policy::{
    split_share,
    table::{Explanation, TopicTable, Who},
};
use wigwag::{Config, QoS, wire::mqtt::topic};

use super::settings::FileArgs;
use super::terminal::escape;
use super::{Failure, block_on};

#[derive(Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    file: FileArgs,

    /// Who asks: the MQTT user name [default: the token's sub]
    #[arg(short, long, value_name = "NAME", required_unless_present = "token")]
    user: Option<String>,

    /// The token that is its password; `WIGWAG_TOKEN` in the environment does the same
    #[arg(short, long, env = "WIGWAG_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// The password, where the configuration has users or asks a service
    #[arg(short = 'P', long, conflicts_with = "token")]
    password: Option<String>,

    /// The MQTT client id, for rows with {client}
    #[arg(short = 'i', long, default_value = "explain")]
    client_id: String,

    /// A room that the user has joined; may be repeated
    #[arg(short, long, value_name = "ROOM")]
    joined: Vec<String>,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Publish a message to a topic
    Publish {
        topic: String,
        #[command(flatten)]
        qos: QosArg,
        /// With the retain flag
        #[arg(short, long)]
        retain: bool,
        /// Bytes of its payload
        #[arg(short, long, default_value_t = 0)]
        size: usize,
    },
    /// Subscribe to a topic filter
    Subscribe {
        filter: String,
        #[command(flatten)]
        qos: QosArg,
    },
}

#[derive(Args)]
struct QosArg {
    /// Quality of service
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
}

impl QosArg {
    fn get(&self) -> QoS {
        QoS::from_bits(self.qos).unwrap_or(QoS::AtLeastOnce)
    }
}

pub fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let config = args.file.load()?.config;
    let auth = Authenticator::new(&config.auth).map_err(|error| Failure::Usage(error.to_string()))?;
    let identity = block_on(identify(args, &auth))?;
    let explanation = explain(args, &config, auth.is_open(), &identity)?;
    println!("{} asks to {}", escape(identity.user.as_bytes()), escaped_lines(&explanation.to_string()));
    match explanation.verdict {
        Ok(_) => Ok(()),
        Err(denied) => Err(Failure::Runtime(format!("refused: {}", denied.why.what()))),
    }
}

fn escaped_lines(text: &str) -> String {
    text.lines().map(|line| escape(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

async fn identify(args: &ExplainArgs, auth: &Authenticator) -> Result<Identity, Failure> {
    let password = args.token.as_deref().or(args.password.as_deref()).map(str::as_bytes);
    let credentials = Credentials { client_id: &args.client_id, user_name: args.user.as_deref(), password };
    let shown = auth.authenticate(credentials, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    shown.map_err(|refusal| {
        Failure::Runtime(format!("would not be let in (0x{:02X}): {}", refusal.reason.0, refusal.what))
    })
}

fn explain(args: &ExplainArgs, config: &Config, open: bool, identity: &Identity) -> Result<Explanation, Failure> {
    let table = TopicTable::new(&config.topics, open);
    // In open mode a room that is neither full nor locked takes signals from whoever has not joined it.
    let joined = |room: &str| identity.believed || args.joined.iter().any(|joined| joined == room);
    let who = Who {
        user: &identity.user,
        client_id: &args.client_id,
        grants: &identity.grants,
        claim: &|name| identity.claim(name),
        is_member: &joined,
    };
    match &args.action {
        Action::Publish { topic, qos, retain, size } => {
            if !topic::valid_name(topic) {
                return Err(Failure::Usage(format!("{topic:?} is no topic name")));
            }
            Ok(table.explain_publish(&who, topic, qos.get(), *retain, *size))
        }
        Action::Subscribe { filter, qos } => {
            if !topic::valid_filter(filter) {
                return Err(Failure::Usage(format!("{filter:?} is no topic filter")));
            }
            let (group, inside) = split_share(filter);
            Ok(table.explain_subscribe(&who, inside, group.is_some(), qos.get()))
        }
    }
}
