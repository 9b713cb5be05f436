//! Layers of `section.key` values, read key by key.
//!
//! Who reads a key says its kind and default and gets a usable value, always; what was wrong is kept and reported
//! with everything else that was. Whatever nobody asked for by the end is unknown, so a key cannot be documented,
//! accepted and ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin, Problem};
use super::value::{Form, Kind, Raw};

const PREFIX: &str = "WIGWAG_";

/// What one key has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub section: &'static str,
    pub key: &'static str,
    /// In TOML.
    pub value: String,
    pub origin: Origin,
}

/// The layers, and what became of them so far.
#[derive(Default)]
pub(super) struct Reader {
    /// Sections of the file that nobody has asked for yet.
    file: BTreeMap<String, Raw>,
    /// Values of the section being read and of those before it that nobody has asked for yet.
    unread: BTreeMap<String, Raw>,
    environment: BTreeMap<String, String>,
    flags: BTreeMap<&'static str, Raw>,
    entries: Vec<Entry>,
    rejected: BTreeSet<String>,
    errors: Vec<ConfigError>,
}

impl Reader {
    /// Adds the file layer.
    pub fn file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let source = Source { path, text };
        for error in errors {
            let origin = source.origin(error.span().map_or(0, |span| span.start));
            // The second complaint about a line is about what the parser made of the first.
            if self.errors.last().is_some_and(|last| last.origin == origin) {
                continue;
            }
            self.errors.push(ConfigError { origin, problem: Problem::Syntax(error.message().into()) });
        }
        self.file = source.table(table.get_ref()).into_iter().collect();
    }

    /// Adds the environment layer: of all variables only those called `WIGWAG_…` with `__` in the name are ours.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        self.environment = variables.filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__")).collect();
    }

    /// Adds a command line flag that stands for `key` (`section.key`).
    pub fn flag(&mut self, key: &'static str, flag: &'static str, value: String) {
        self.flags.insert(key, Raw { form: Form::Untyped(value), origin: Origin::Flag(flag) });
    }

    /// True if some layer sets the key. To be asked before its section is read.
    pub fn is_set(&self, section: &str, key: &str) -> bool {
        let in_file = self.file.get(section).is_some_and(|raw| match &raw.form {
            Form::Table(keys) => keys.iter().any(|(name, _)| name == key),
            _ => false,
        });
        in_file
            || self.environment.contains_key(&variable(section, key))
            || self.flags.contains_key(&*name(section, key))
    }

    /// Fails if the file is not TOML: complaints about what could be made of it would mislead.
    pub fn require_syntax(&mut self) -> Result<(), ConfigErrors> {
        ConfigErrors::collect(std::mem::take(&mut self.errors))
    }

    /// Opens a section; one below another (`auth.token`) after that other.
    pub fn section(&mut self, section: &'static str) -> Section<'_> {
        match self.file.remove(section).or_else(|| self.unread.remove(section)) {
            Some(Raw { form: Form::Table(keys), .. }) => {
                self.unread.extend(keys.into_iter().map(|(key, raw)| (name(section, &key), raw)));
            }
            Some(raw) => {
                let allowed = format!("a table: [{section}] and its keys on lines of their own");
                self.bad_value(section.into(), raw.origin.clone(), raw.found(), allowed);
            }
            None => {}
        }
        Section { reader: self, section }
    }

    /// Where the value of a key that was read came from, unless it was refused: then there is no more to say about it.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let is_it = |entry: &&Entry| name(entry.section, entry.key) == key;
        self.entries.iter().find(is_it).map(|entry| &entry.origin).filter(|_| !self.rejected.contains(key))
    }

    /// Reports values that do not go together, at the place of `key`. All keys involved must have been accepted.
    pub fn conflict(&mut self, origin: Origin, key: &'static str, reason: impl Into<String>) {
        self.errors.push(ConfigError { origin, problem: Problem::Conflict { key, reason: reason.into() } });
    }

    /// Everything that was read, or everything that was wrong.
    pub fn finish(mut self) -> Result<Vec<Entry>, ConfigErrors> {
        for (section, raw) in std::mem::take(&mut self.file) {
            let nearest = match raw.form {
                Form::Table(_) => self.nearest_section(&section).map(|known| format!("[{known}]")),
                _ => self.nearest_key("", &section),
            };
            let unknown = if matches!(raw.form, Form::Table(_)) { format!("[{section}]") } else { section };
            self.unknown(raw.origin, unknown, nearest);
        }
        for (full, raw) in std::mem::take(&mut self.unread) {
            let (section, key) = full.rsplit_once('.').unwrap_or(("", &full));
            let nearest = self.nearest_key(section, key);
            self.unknown(raw.origin, full, nearest);
        }
        for variable_name in std::mem::take(&mut self.environment).into_keys() {
            let rest = variable_name[PREFIX.len()..].to_ascii_lowercase();
            let (section, key) = rest.trim_start_matches('_').rsplit_once("__").unwrap_or(("", &rest));
            let nearest = self.nearest_key(&section.replace("__", "."), key).and_then(|full| {
                let (section, key) = full.rsplit_once('.')?;
                Some(variable(section, key))
            });
            self.unknown(Origin::Environment(variable_name.clone()), variable_name, nearest);
        }
        ConfigErrors::collect(self.errors)?;
        Ok(self.entries)
    }

    fn unknown(&mut self, origin: Origin, name: String, nearest: Option<String>) {
        self.errors.push(ConfigError { origin, problem: Problem::Unknown { name, nearest } });
    }

    fn bad_value(&mut self, key: String, origin: Origin, found: String, allowed: String) {
        self.errors.push(ConfigError { origin, problem: Problem::BadValue { key, found, allowed } });
    }

    fn nearest_section(&self, section: &str) -> Option<&'static str> {
        closest(section, self.entries.iter().map(|entry| entry.section))
    }

    /// The key that was probably meant: in the section it was found in if there is one like it, else anywhere.
    fn nearest_key(&self, section: &str, key: &str) -> Option<String> {
        let section = self.nearest_section(section).unwrap_or("");
        let here = self.entries.iter().filter(|entry| entry.section == section).map(|entry| entry.key);
        if let Some(key) = closest(key, here) {
            return Some(name(section, key));
        }
        let key = closest(key, self.entries.iter().map(|entry| entry.key))?;
        self.entries.iter().find(|entry| entry.key == key).map(|entry| name(entry.section, key))
    }
}

/// An open section: keys are read from it by name.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    section: &'static str,
}

impl Section<'_> {
    /// The value of the highest layer that has the key, or the default. A bad value is reported in whichever layer it
    /// stands, also when a higher one hides it.
    pub fn read<K: Kind>(&mut self, key: &'static str, kind: K, default: K::Value) -> K::Value {
        let full = name(self.section, key);
        let variable = variable(self.section, key);
        let from_environment = self.reader.environment.remove(&variable);
        let layers = [
            self.reader.unread.remove(&full),
            from_environment.map(|text| Raw { form: Form::Untyped(text), origin: Origin::Environment(variable) }),
            self.reader.flags.remove(&*full),
        ];
        let (mut value, mut origin) = (default, Origin::Default);
        for raw in layers.into_iter().flatten() {
            match kind.parse(&raw) {
                Ok(parsed) => (value, origin) = (parsed, raw.origin),
                Err(reasons) => {
                    self.reader.rejected.insert(full.clone());
                    for reason in reasons {
                        self.reader.bad_value(full.clone(), reason.origin, reason.found, reason.allowed);
                    }
                }
            }
        }
        self.reader.entries.push(Entry { section: self.section, key, value: kind.show(&value), origin });
        value
    }
}

fn name(section: &str, key: &str) -> String {
    format!("{section}.{key}")
}

fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{key}", section.replace('.', "__")).to_ascii_uppercase()
}

/// The candidate that a typing error or two away, if there is one.
fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = word.chars().count() / 3;
    let distance = |candidate: &'a str| (strsim::damerau_levenshtein(word, candidate), candidate);
    candidates.map(distance).min().filter(|(edits, _)| *edits <= tolerance).map(|(_, candidate)| candidate)
}

/// A file's text while it is turned into values that know their line.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Origin::File { path: PathBuf::from(self.path), line: Some(before.matches('\n').count() + 1) }
    }

    fn table(&self, table: &DeTable<'_>) -> Vec<(String, Raw)> {
        let entry = |key: &Spanned<DeString<'_>>, value| {
            let raw = Raw { origin: self.origin(key.span().start), ..self.raw(value) };
            (key.get_ref().to_string(), raw)
        };
        table.iter().map(|(key, value)| entry(key, value)).collect()
    }

    fn raw(&self, value: &Spanned<DeValue<'_>>) -> Raw {
        let form = match value.get_ref() {
            DeValue::String(text) => Form::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Form::Integer(number),
                Err(_) => Form::Other(number.as_str().into()),
            },
            DeValue::Float(number) => Form::Other(number.as_str().into()),
            DeValue::Boolean(value) => Form::Boolean(*value),
            DeValue::Datetime(moment) => Form::Other(moment.to_string()),
            DeValue::Array(items) => Form::List(items.iter().map(|item| self.raw(item)).collect()),
            DeValue::Table(table) => Form::Table(self.table(table)),
        };
        Raw { form, origin: self.origin(value.span().start) }
    }
}
