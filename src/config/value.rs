//! What a value may look like: how it is read from TOML or from the untyped text of an environment variable, what
//! is said when it is not allowed, and how it is written back.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::error::Origin;
use super::listen::AllowedOrigin;

/// A value as it was written, and where.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub form: Form,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Form {
    Integer(i64),
    Boolean(bool),
    String(String),
    List(Vec<Raw>),
    Table(Vec<(String, Raw)>),
    /// What no key takes (a float, a date, an integer beyond 64 bits), as written.
    Other(String),
    /// From an environment variable or a flag: whatever the key makes of it.
    Untyped(String),
}

impl Raw {
    pub fn text(&self) -> Option<&str> {
        match &self.form {
            Form::String(text) | Form::Untyped(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match &self.form {
            Form::Integer(number) => Some(*number),
            Form::Untyped(text) => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }

    /// As an error message shows it.
    pub fn found(&self) -> String {
        match &self.form {
            Form::Integer(number) => number.to_string(),
            Form::Boolean(value) => value.to_string(),
            Form::String(text) | Form::Untyped(text) => format!("{text:?}"),
            Form::List(_) => "a list".into(),
            Form::Table(_) => "a table".into(),
            Form::Other(text) => text.clone(),
        }
    }

    /// As it stands here, it cannot be used.
    pub fn reject(&self, allowed: String) -> Vec<Rejected> {
        vec![Rejected { origin: self.origin.clone(), found: self.found(), allowed }]
    }
}

/// A value, or one item of a list, that cannot be used.
#[derive(Debug)]
pub(super) struct Rejected {
    pub origin: Origin,
    pub found: String,
    pub allowed: String,
}

/// A kind of value: one for each way in which keys are written.
pub(super) trait Kind {
    type Value;

    /// Completes the sentence "allowed: …".
    fn allowed(&self) -> String;

    /// The value, or everything that is wrong with it.
    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<Rejected>>;

    /// The value in TOML, such that `parse` gives it back.
    fn show(&self, value: &Self::Value) -> String;
}

/// How amounts of one dimension are written. Amounts are held in the smallest unit.
struct Unit {
    what: &'static str,
    /// What a bare integer is multiplied with.
    bare: u64,
    /// From the smallest to the largest.
    suffixes: &'static [(&'static str, u64)],
    example: &'static str,
}

const COUNT: Unit = Unit { what: "a whole number", bare: 1, suffixes: &[], example: "" };

const BYTES: Unit = Unit {
    what: "a size",
    bare: 1,
    suffixes: &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
    example: " (bytes, or like \"64KiB\", \"1MiB\")",
};

const MILLISECONDS: Unit = Unit {
    what: "a duration",
    bare: 1000,
    suffixes: &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    example: " (seconds, or like \"500ms\", \"10s\", \"5m\", \"1h\")",
};

impl Unit {
    fn parse(&self, raw: &Raw) -> Option<u64> {
        if let Some(number) = raw.integer() {
            return u64::try_from(number).ok()?.checked_mul(self.bare);
        }
        let text = raw.text()?;
        let (number, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, factor) = self.suffixes.iter().find(|(name, _)| *name == suffix)?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    }

    /// In the largest unit that divides it.
    fn show(&self, amount: u64) -> String {
        let divides = |&&(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(factor);
        match self.suffixes.iter().rev().find(divides) {
            Some((suffix, factor)) => format!("\"{}{suffix}\"", amount / factor),
            None => amount.to_string(),
        }
    }
}

/// What an amount within its range is turned into.
pub(super) trait Amount {
    fn from_amount(amount: u64) -> Self;
    fn amount(&self) -> u64;
}

impl Amount for usize {
    fn from_amount(amount: u64) -> Self {
        // Only a 32-bit machine gets here with more than fits, and has no more memory than that.
        Self::try_from(amount).unwrap_or(Self::MAX)
    }
    fn amount(&self) -> u64 {
        *self as u64
    }
}

impl Amount for u16 {
    fn from_amount(amount: u64) -> Self {
        Self::try_from(amount).unwrap_or(Self::MAX)
    }
    fn amount(&self) -> u64 {
        u64::from(*self)
    }
}

impl Amount for Duration {
    fn from_amount(amount: u64) -> Self {
        Self::from_millis(amount)
    }
    fn amount(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A number, a size or a duration within a range.
pub(super) struct Quantity<T> {
    unit: &'static Unit,
    range: RangeInclusive<u64>,
    step: u64,
    value: PhantomData<T>,
}

/// A whole number.
pub(super) fn count<T: Amount>(range: RangeInclusive<u64>) -> Quantity<T> {
    Quantity { unit: &COUNT, range, step: 1, value: PhantomData }
}

/// A size; the range is in bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> Quantity<usize> {
    Quantity { unit: &BYTES, range, step: 1, value: PhantomData }
}

/// A duration; the range is in milliseconds.
pub(super) fn time(range: RangeInclusive<u64>) -> Quantity<Duration> {
    Quantity { unit: &MILLISECONDS, range, step: 1, value: PhantomData }
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const SECOND: u64 = 1000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

impl<T> Quantity<T> {
    /// For durations that MQTT carries in seconds.
    pub fn whole_seconds(self) -> Self {
        Self { step: SECOND, ..self }
    }

    /// Zero stands for something of its own, named for the message that says what is allowed.
    pub fn or_zero(self, meaning: &'static str) -> OrZero<T> {
        OrZero { quantity: self, meaning }
    }

    fn check(&self, amount: u64) -> bool {
        self.range.contains(&amount) && amount.is_multiple_of(self.step)
    }
}

impl<T: Amount> Kind for Quantity<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let Unit { what, example, .. } = self.unit;
        let (low, high) = (self.unit.show(*self.range.start()), self.unit.show(*self.range.end()));
        let step = if self.step > 1 { " in whole seconds" } else { "" };
        format!("{what} from {low} to {high}{step}{example}")
    }

    fn parse(&self, raw: &Raw) -> Result<T, Vec<Rejected>> {
        let amount = self.unit.parse(raw).filter(|amount| self.check(*amount));
        amount.map(T::from_amount).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &T) -> String {
        self.unit.show(value.amount())
    }
}

/// A quantity, or zero for none.
pub(super) struct OrZero<T> {
    quantity: Quantity<T>,
    meaning: &'static str,
}

impl<T: Amount> Kind for OrZero<T> {
    type Value = Option<T>;

    fn allowed(&self) -> String {
        format!("0 ({}) or {}", self.meaning, self.quantity.allowed())
    }

    fn parse(&self, raw: &Raw) -> Result<Option<T>, Vec<Rejected>> {
        match self.quantity.unit.parse(raw) {
            Some(0) => Ok(None),
            Some(amount) if self.quantity.check(amount) => Ok(Some(T::from_amount(amount))),
            _ => Err(raw.reject(self.allowed())),
        }
    }

    fn show(&self, value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| "0".into(), |value| self.quantity.show(value))
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".into()
    }

    fn parse(&self, raw: &Raw) -> Result<bool, Vec<Rejected>> {
        match &raw.form {
            Form::Boolean(value) => Ok(*value),
            Form::Untyped(text) => text.parse().map_err(|_| raw.reject(self.allowed())),
            _ => Err(raw.reject(self.allowed())),
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// Text for which `accept` holds.
pub(super) struct Text {
    pub allowed: &'static str,
    pub accept: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;

    fn allowed(&self) -> String {
        self.allowed.into()
    }

    fn parse(&self, raw: &Raw) -> Result<String, Vec<Rejected>> {
        let text = raw.text().filter(|text| (self.accept)(text));
        text.map(String::from).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &String) -> String {
        quote(value)
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn allowed(&self) -> String {
        self.0.iter().map(|(word, _)| quote(word)).collect::<Vec<_>>().join(" or ")
    }

    fn parse(&self, raw: &Raw) -> Result<T, Vec<Rejected>> {
        let chosen = raw.text().and_then(|text| self.0.iter().find(|(word, _)| *word == text));
        chosen.map(|(_, value)| *value).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &T) -> String {
        self.0.iter().find(|(_, candidate)| candidate == value).map(|(word, _)| quote(word)).unwrap_or_default()
    }
}

/// An address and port to listen on.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn allowed(&self) -> String {
        "address:port like \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\" (names are not looked up)".into()
    }

    fn parse(&self, raw: &Raw) -> Result<SocketAddr, Vec<Rejected>> {
        raw.text().and_then(|text| text.parse().ok()).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &SocketAddr) -> String {
        quote(&value.to_string())
    }
}

/// Whose pages may connect.
pub(super) struct PageOrigin;

impl Kind for PageOrigin {
    type Value = AllowedOrigin;

    fn allowed(&self) -> String {
        "\"same-host\", \"*\", or an origin like \"https://app.example\" or \"http://localhost:5173\"".into()
    }

    fn parse(&self, raw: &Raw) -> Result<AllowedOrigin, Vec<Rejected>> {
        let origin = |text: &str| {
            let (scheme, host) = text.split_once("://")?;
            let plain = |part: &str| !part.is_empty() && !part.contains(['/', '*', '?', '#', '@', ' ']);
            (plain(scheme) && plain(host)).then(|| AllowedOrigin::Exact(text.into()))
        };
        let parsed = raw.text().and_then(|text| match text {
            "same-host" => Some(AllowedOrigin::SameHost),
            "*" => Some(AllowedOrigin::Any),
            text => origin(text),
        });
        parsed.ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &AllowedOrigin) -> String {
        quote(match value {
            AllowedOrigin::SameHost => "same-host",
            AllowedOrigin::Any => "*",
            AllowedOrigin::Exact(origin) => origin,
        })
    }
}

/// A network like `10.0.0.0/8`, or one address.
pub(super) struct Network;

impl Kind for Network {
    type Value = IpNet;

    fn allowed(&self) -> String {
        "a network like \"10.0.0.0/8\" or \"2001:db8::/32\", or one address".into()
    }

    fn parse(&self, raw: &Raw) -> Result<IpNet, Vec<Rejected>> {
        let net = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        raw.text().and_then(net).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &IpNet) -> String {
        quote(&value.to_string())
    }
}

/// A list; comma separated where there are no types.
pub(super) struct List<K>(pub K);

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn allowed(&self) -> String {
        format!("a list of {}", self.0.allowed())
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<Rejected>> {
        let items = match &raw.form {
            Form::List(items) => items.clone(),
            Form::Untyped(text) if text.trim().is_empty() => Vec::new(),
            Form::Untyped(text) => {
                let untyped = |item: &str| Raw { form: Form::Untyped(item.trim().into()), origin: raw.origin.clone() };
                text.split(',').map(untyped).collect()
            }
            _ => return Err(raw.reject(self.allowed())),
        };
        let (mut values, mut rejected) = (Vec::new(), Vec::new());
        for item in &items {
            match self.0.parse(item) {
                Ok(value) => values.push(value),
                Err(mut reasons) => rejected.append(&mut reasons),
            }
        }
        if rejected.is_empty() { Ok(values) } else { Err(rejected) }
    }

    fn show(&self, value: &Self::Value) -> String {
        format!("[{}]", value.iter().map(|item| self.0.show(item)).collect::<Vec<_>>().join(", "))
    }
}

/// Text in TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}
