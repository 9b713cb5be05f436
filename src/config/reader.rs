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

/// Keys and values of one table of an array, and where it stands.
pub(super) type Row = (Vec<(String, Raw)>, Origin);

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
    /// Names of arrays of tables.
    arrays: Vec<&'static str>,
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

    /// Takes the rows of an array of tables, each with its place; `None` if the file has no such key.
    pub fn rows(&mut self, name: &'static str) -> Option<Vec<Row>> {
        self.arrays.push(name);
        let raw = self.file.remove(name)?;
        let origin = raw.origin.clone();
        let Form::List(items) = raw.form else {
            let allowed = format!("tables: [[{name}]] and its keys on lines of their own, for each");
            self.bad_value(name.into(), origin, raw.found(), allowed);
            return None;
        };
        let mut rows = Vec::new();
        for item in items {
            match item.form {
                Form::Table(keys) => rows.push((keys, item.origin)),
                _ => self.bad_value(name.into(), item.origin.clone(), item.found(), "a table".into()),
            }
        }
        Some(rows)
    }

    /// Opens a table that may stand more than once.
    pub fn fields(&mut self, name: &'static str, keys: Vec<(String, Raw)>) -> Fields<'_> {
        Fields { reader: self, name: name.into(), keys, read: Vec::new(), sound: true }
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
            let (unknown, nearest) = match &raw.form {
                Form::Table(_) => (format!("[{section}]"), self.nearest_header(&section)),
                Form::List(items) if items.iter().any(|item| matches!(item.form, Form::Table(_))) => {
                    (format!("[[{section}]]"), self.nearest_header(&section))
                }
                _ => (section.clone(), self.nearest_key("", &section)),
            };
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

    /// The section or array of tables that was probably meant.
    fn nearest_header(&self, name: &str) -> Option<String> {
        let known = closest(name, self.entries.iter().map(|entry| entry.section).chain(self.arrays.iter().copied()))?;
        Some(if self.arrays.contains(&known) { format!("[[{known}]]") } else { format!("[{known}]") })
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

/// A table of the file that is read key by key, like a [`Section`] but without layers above it.
pub(super) struct Fields<'r> {
    reader: &'r mut Reader,
    /// `topic`, `topic.qos`
    name: String,
    keys: Vec<(String, Raw)>,
    /// The keys that were asked for, and where each stands that is there.
    read: Vec<(&'static str, Option<Origin>)>,
    sound: bool,
}

impl Fields<'_> {
    /// The value of a key, or the default.
    pub fn read<K: Kind>(&mut self, key: &'static str, kind: K, default: K::Value) -> K::Value {
        self.take(key).and_then(|raw| self.parse(key, &kind, &raw)).unwrap_or(default)
    }

    /// The value of a key that has no default; `None` has been reported, at `origin` if the key is not there.
    pub fn require<K: Kind>(&mut self, key: &'static str, kind: K, origin: &Origin) -> Option<K::Value> {
        if let Some(raw) = self.take(key) {
            return self.parse(key, &kind, &raw);
        }
        self.sound = false;
        let allowed = kind.allowed();
        self.reader.bad_value(name(&self.name, key), origin.clone(), "nothing".into(), allowed);
        None
    }

    /// A key whose value is a table itself, read by `read`.
    pub fn table<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&mut Fields<'_>, T) -> T) -> T {
        let Some(raw) = self.take(key) else { return default };
        let full = name(&self.name, key);
        let Form::Table(keys) = raw.form else {
            self.sound = false;
            self.reader.bad_value(full, raw.origin.clone(), raw.found(), "a table: { key = value, … }".into());
            return default;
        };
        let mut inner = Fields { reader: self.reader, name: full, keys, read: Vec::new(), sound: true };
        let value = read(&mut inner, default);
        let sound = inner.finish().is_some();
        self.sound &= sound;
        value
    }

    /// Reports what nobody asked for. Where the keys stand, if all that was there could be used.
    pub fn finish(self) -> Option<Vec<(&'static str, Origin)>> {
        let sound = self.sound && self.keys.is_empty();
        for (key, raw) in self.keys {
            let nearest = closest(&key, self.read.iter().map(|(known, _)| *known));
            let nearest = nearest.map(|known| name(&self.name, known));
            self.reader.unknown(raw.origin, name(&self.name, &key), nearest);
        }
        let places = self.read.into_iter().filter_map(|(key, origin)| Some((key, origin?)));
        sound.then(|| places.collect())
    }

    fn take(&mut self, key: &'static str) -> Option<Raw> {
        let at = self.keys.iter().position(|(name, _)| name == key);
        let raw = at.map(|at| self.keys.swap_remove(at).1);
        self.read.push((key, raw.as_ref().map(|raw| raw.origin.clone())));
        raw
    }

    fn parse<K: Kind>(&mut self, key: &str, kind: &K, raw: &Raw) -> Option<K::Value> {
        match kind.parse(raw) {
            Ok(value) => Some(value),
            Err(reasons) => {
                self.sound = false;
                for reason in reasons {
                    self.reader.bad_value(name(&self.name, key), reason.origin, reason.found, reason.allowed);
                }
                None
            }
        }
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
