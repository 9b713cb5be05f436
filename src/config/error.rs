//! What can be wrong with a configuration, said so that it can be put right: where, what was found, what is allowed.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from, later layers overriding earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file, counted from 1; none when the file as a whole is meant.
    File {
        /// As the operator named it.
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A command line flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the culprit stands.
    pub origin: Origin,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The ways in which a configuration can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The file is not there, may not be read, or is not UTF-8.
    Unreadable(String),
    /// The file is not TOML.
    Syntax(String),
    /// No such section or key.
    Unknown {
        /// The name that was found: `[section]`, `section.key`, or an environment variable.
        name: String,
        /// The known name that looks most like it, if one does.
        nearest: Option<String>,
    },
    /// A key whose value cannot be used.
    BadValue {
        /// `section.key`
        key: String,
        /// The value as it was written.
        found: String,
        /// What could stand there instead.
        allowed: String,
    },
    /// Values that are good one by one but not together.
    Conflict {
        /// `section.key`
        key: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An unknown environment variable is its own place.
        if !matches!((&self.origin, &self.problem), (Origin::Environment(_), Problem::Unknown { .. })) {
            write!(f, "{}: ", self.origin)?;
        }
        match &self.problem {
            Problem::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Problem::Syntax(message) => write!(f, "not TOML: {message}"),
            Problem::Unknown { name, nearest: None } => write!(f, "{name} is not known"),
            Problem::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "{name} is not known, did you mean {nearest}?")
            }
            Problem::BadValue { key, found, allowed } => write!(f, "{key}: found {found}, allowed: {allowed}"),
            Problem::Conflict { key, reason } => write!(f, "{key}: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration, in the order of its lines; never empty. Displays as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts by place: the file by line, then the environment, then flags. None when there is nothing to report.
    pub(super) fn collect(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The text of a configuration file.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::File { path: path.into(), line: None };
        ConfigErrors(vec![ConfigError { origin, problem: Problem::Unreadable(error.to_string()) }])
    })
}
