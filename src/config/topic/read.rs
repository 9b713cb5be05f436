//! `[[topic]]` rows from TOML, and what can be wrong with them.

use std::time::Duration;

use super::audience::AudienceList;
use super::pattern::PatternText;
use super::{Audience, OPEN, PAYLOAD, Pattern, QosRule, RETAIN, Rate, RetainRule, TopicRow, TopicRows, Word};
use crate::config::error::Origin;
use crate::config::reader::{Fields, Reader, Section};
use crate::config::value::{GIB, HOUR, Kind, MIB, OrZero, Quantity, Switch, Text, count, size, time};
use crate::wire::mqtt::QoS;

const NAME: Text = Text {
    allowed: "1 to 32 of a-z, 0-9, - and _, and not \"open\", the class of what open mode adds",
    accept: |name| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        (1..=32).contains(&name.len()) && name.chars().all(plain) && name != OPEN
    },
};

pub(super) fn retain_per_room() -> OrZero<usize> {
    count(1..=1_000_000).or_zero("no bound")
}

pub(super) fn payload_size() -> OrZero<usize> {
    size(1..=256 * MIB).or_zero("no bound")
}

pub(super) fn messages() -> OrZero<usize> {
    count(1..=1_000_000).or_zero("no bound")
}

pub(super) fn bytes() -> OrZero<usize> {
    size(1..=GIB).or_zero("no bound")
}

pub(super) fn burst() -> Quantity<Duration> {
    time(100..=HOUR)
}

/// The keys of a rate, in a section of its own.
pub(in crate::config) fn rate_keys(section: &mut Section<'_>, d: Rate) -> Rate {
    Rate {
        messages: section.read("messages", messages(), d.messages),
        bytes: section.read("bytes", bytes(), d.bytes),
        burst: section.read("burst", burst(), d.burst),
    }
}

impl TopicRows {
    /// The most rows that a table may have.
    pub const MAX: usize = 63;

    /// The rows of the file if it has any, otherwise the shipped ones; and where each row of the file stands.
    pub(in crate::config) fn read(reader: &mut Reader) -> (Self, Vec<Origin>) {
        let Some(tables) = reader.rows("topic") else { return (Self::default(), Vec::new()) };
        let mut rows: Vec<(TopicRow, Places)> = Vec::new();
        for (n, (fields, origin)) in tables.into_iter().enumerate() {
            if n == Self::MAX {
                let reason = format!("there are more than {} rows; merge some, or use wildcards", Self::MAX);
                reader.conflict(origin, "topic", reason);
                break;
            }
            let Some((row, places)) = read_row(reader.fields("topic", fields), origin) else { continue };
            let at = |place: Option<&Origin>| place.cloned().unwrap_or_else(|| places.row.clone());
            for (key, reason) in contradictions(&row) {
                reader.conflict(at(places.of(key)), key, reason);
            }
            for (key, reason) in against_earlier(&row, &rows) {
                reader.conflict(at(places.of(key)), key, reason);
            }
            rows.push((row, places));
        }
        let (rows, places): (_, Vec<_>) = rows.into_iter().unzip();
        (Self(rows), places.into_iter().map(|places| places.row).collect())
    }
}

/// Where a row and its keys stand.
struct Places {
    row: Origin,
    keys: Vec<(&'static str, Origin)>,
}

impl Places {
    /// `topic.key`
    fn of(&self, key: &str) -> Option<&Origin> {
        let key = key.strip_prefix("topic.")?;
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, origin)| origin)
    }
}

/// A row all of whose values can be used; what is wrong with it otherwise has been reported.
fn read_row(mut fields: Fields<'_>, origin: Origin) -> Option<(TopicRow, Places)> {
    let name = fields.require("name", NAME, &origin);
    let filter = fields.require("filter", PatternText, &origin);
    let d = TopicRow::new("", Pattern::parse("#").ok()?);
    let row = TopicRow {
        name: String::new(),
        publish: fields.read("publish", AudienceList, d.publish),
        subscribe: fields.read("subscribe", AudienceList, d.subscribe),
        joins: fields.read("joins", Switch, d.joins),
        qos: fields.table("qos", d.qos, |qos, d| QosRule {
            max: read_qos(qos, "max", d.max),
            min: read_qos(qos, "min", d.min),
            raise: qos.read("raise", Switch, d.raise),
        }),
        retain: fields.read("retain", RETAIN, d.retain),
        retain_per_room: fields.read("retain_per_room", retain_per_room(), d.retain_per_room),
        payload: fields.read("payload", PAYLOAD, d.payload),
        size: fields.read("size", payload_size(), d.size),
        rate: fields.table("rate", d.rate, |rate, d| Rate {
            messages: rate.read("messages", messages(), d.messages),
            bytes: rate.read("bytes", bytes(), d.bytes),
            burst: rate.read("burst", burst(), d.burst),
        }),
        filter: d.filter,
    };
    let keys = fields.finish()?;
    Some((TopicRow { name: name?, filter: filter?, ..row }, Places { row: origin, keys }))
}

fn read_qos(fields: &mut Fields<'_>, key: &'static str, default: QoS) -> QoS {
    let number: usize = fields.read(key, count(0..=2), default as usize);
    u8::try_from(number).ok().and_then(QoS::from_bits).unwrap_or(default)
}

/// What a row asks for and its own filter or its other keys cannot say.
fn contradictions(row: &TopicRow) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (key, audience) in [("topic.publish", &row.publish), ("topic.subscribe", &row.subscribe)] {
        found.extend(unspeakable(row, audience).map(|reason| (key, reason)));
    }
    if row.subscribe.mentions(Word::Broker) {
        found.push(("topic.subscribe", "the broker subscribes to nothing; \"nobody\" keeps every client out".into()));
    }
    if row.joins && !row.filter.has_room() {
        found.push(("topic.joins", "without {room} in the filter there is no room to join".into()));
    }
    if row.qos.raise && row.qos.max == QoS::AtMostOnce {
        found.push(("topic.qos", "raise with max = 0 raises nothing".into()));
    }
    if row.qos.min > row.qos.max {
        found.push(("topic.qos", format!("min = {} is above max = {}", row.qos.min as u8, row.qos.max as u8)));
    }
    let bounded = row.retain_per_room.is_some();
    if bounded && !row.filter.has_room() {
        found.push(("topic.retain_per_room", "without {room} in the filter there is no room to count in".into()));
    }
    if bounded && matches!(row.retain, RetainRule::Never | RetainRule::Broker) {
        found.push(("topic.retain_per_room", "a client's messages are not retained here; see retain".into()));
    }
    found
}

fn unspeakable(row: &TopicRow, audience: &Audience) -> Option<String> {
    let of_a_room = [Word::Member, Word::Listen, Word::Admin].into_iter().find(|word| audience.mentions(*word));
    match of_a_room {
        _ if audience.mentions(Word::Nobody) && audience.combinations().len() > 1 => {
            Some("\"nobody\" means nothing beside others".into())
        }
        _ if audience.mentions(Word::Oneself) && !row.filter.has_user() => {
            Some("\"self\" needs {user} in the filter".into())
        }
        Some(word) if !row.filter.has_room() => Some(format!("\"{word}\" needs {{room}} in the filter")),
        _ => None,
    }
}

/// What a row and the rows before it cannot both be.
fn against_earlier(row: &TopicRow, earlier: &[(TopicRow, Places)]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if let Some((_, places)) = earlier.iter().find(|(other, _)| other.name == row.name) {
        found.push(("topic.name", format!("\"{}\" is the name of the row at {} already", row.name, places.row)));
    }
    if let Some((other, places)) = earlier.iter().find(|(other, _)| other.filter.covers(&row.filter)) {
        let shown = PatternText.show(&other.filter);
        let reason = format!("never reached: {shown} at {} matches all of it; move this row before that", places.row);
        found.push(("topic.filter", reason));
    }
    found
}
