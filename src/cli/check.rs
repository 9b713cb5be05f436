//! `wigwag check`: is this configuration valid, and what does it come to?

use std::io::Write;

use wigwag::Server;

use super::Failure;
use super::settings::SettingsArgs;

pub fn run(args: &SettingsArgs) -> Result<(), Failure> {
    let effective = args.load()?;
    // The certificate, keys, users and revocations that it names have to be there, too.
    let files = Server::builder().config(effective.config.clone()).check();
    files.map_err(|error| Failure::Usage(error.to_string()))?;
    write!(std::io::stdout(), "{effective}").map_err(|error| Failure::Runtime(format!("standard output: {error}")))
}
