//! `wigwag check`: is this configuration valid, and what does it come to?

use std::io::Write;

use super::Failure;
use super::settings::SettingsArgs;

pub fn run(args: &SettingsArgs) -> Result<(), Failure> {
    let effective = args.load()?;
    write!(std::io::stdout(), "{effective}").map_err(|error| Failure::Runtime(format!("standard output: {error}")))
}
