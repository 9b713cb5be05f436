//! Values of `[backplane]` as they are written.

use std::fmt;

use crate::config::value::{Kind, Raw, Rejected, quote};
use crate::wire::mqtt::topic;

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl BrokerUrl {
    fn parse(text: &str) -> Option<Self> {
        let uri: hyper::Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "mqtt" => false,
            "mqtts" => true,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_matches(['[', ']']);
        let bare = uri.path_and_query().is_none_or(|path| matches!(path.as_str(), "" | "/"));
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // A port that is none is no part of the host either.
            None if authority.as_str() != authority.host() => return None,
            None if tls => 8883,
            None => 1883,
        };
        (bare && !host.is_empty() && port != 0).then(|| Self { tls, host: host.into(), port })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// A [`BrokerUrl`], or none.
pub(super) struct BrokerUrlForm;

impl Kind for BrokerUrlForm {
    type Value = Option<BrokerUrl>;

    fn allowed(&self) -> String {
        "a URL like \"mqtt://broker.example:1883\" or \"mqtts://broker.example\" (user and password are keys of their \
         own), or \"\" for none"
            .into()
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<Rejected>> {
        match raw.text() {
            Some("") => Ok(None),
            text => match text.and_then(BrokerUrl::parse) {
                Some(url) => Ok(Some(url)),
                None => Err(raw.reject(self.allowed())),
            },
        }
    }

    fn show(&self, value: &Self::Value) -> String {
        quote(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

/// What must not be seen: neither in an error, nor by `wigwag check`, nor by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// What stands for a password where it would be shown, and is none.
const HIDDEN: &str = "(hidden)";

/// A [`Password`], or none.
pub(super) struct PasswordForm;

impl Kind for PasswordForm {
    type Value = Option<Password>;

    fn allowed(&self) -> String {
        format!("text, other than {}; \"\" for none", quote(HIDDEN))
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<Rejected>> {
        match raw.text() {
            Some("") => Ok(None),
            Some(text) if text != HIDDEN => Ok(Some(Password::new(text))),
            _ => {
                let found = "something else".into();
                Err(vec![Rejected { origin: raw.origin.clone(), found, allowed: self.allowed() }])
            }
        }
    }

    fn show(&self, value: &Self::Value) -> String {
        quote(value.as_ref().map_or("", |_| HIDDEN))
    }
}

/// A filter of topics that may be shared.
pub(super) struct SharedFilter;

impl Kind for SharedFilter {
    type Value = String;

    fn allowed(&self) -> String {
        "topic filters like \"app/#\", whose first level is ASCII, no wildcard and none of \"rooms\", \"users\", \
         \"events\", \"wigwag\" and $…"
            .into()
    }

    fn parse(&self, raw: &Raw) -> Result<String, Vec<Rejected>> {
        let sharable = |text: &&str| {
            let first = text.split('/').next().unwrap_or_default();
            let ours = ["rooms", "users", "events", "wigwag"].contains(&first) || first.starts_with('$');
            topic::valid_filter(text) && !first.is_empty() && first.is_ascii() && !first.contains(['+', '#']) && !ours
        };
        raw.text().filter(sharable).map(String::from).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &String) -> String {
        quote(value)
    }
}

#[cfg(test)]
mod tests {
    use super::BrokerUrl;
    use crate::config::Config;

    #[test]
    fn where_a_broker_is() {
        for (text, whole) in [
            ("mqtt://broker.example", "mqtt://broker.example:1883"),
            ("mqtts://broker.example/", "mqtts://broker.example:8883"),
            ("mqtt://127.0.0.1:2000", "mqtt://127.0.0.1:2000"),
            ("mqtt://[::1]:2000", "mqtt://[::1]:2000"),
        ] {
            assert_eq!(BrokerUrl::parse(text).map(|url| url.to_string()).as_deref(), Some(whole));
        }
        for text in ["broker", "http://x", "mqtt://", "mqtt://x/path", "mqtt://u:p@x", "mqtt://x:0", "mqtt://x:y"] {
            assert_eq!(BrokerUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shared_begins_with_a_level_of_its_own() {
        let share = |filter: &str| Config::from_toml_str(&format!("[backplane]\nshare = [\"{filter}\"]"));
        for good in ["app/#", "app", "a-b/+/c", "app/ü"] {
            assert!(share(good).is_ok(), "{good}");
        }
        for bad in ["#", "+/a", "ü/a", "rooms/#", "users/+/inbox", "events/#", "wigwag/#", "$SYS/#", "", "/a", "a/#/b"]
        {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (text, key) in [
            ("mode = \"mqtt\"", "backplane.mode"),
            ("url = \"mqtt://x\"", "backplane.url"),
            ("share = [\"a/#\", \"a/b\"]", "backplane.share"),
            ("certificate = \"x\"", "backplane.certificate"),
            ("key = \"x\"", "backplane.key"),
            ("keep_last = [\"other/x\"]", "backplane.keep_last"),
            ("password = \"(hidden)\"", "backplane.password"),
        ] {
            let errors = Config::from_toml_str(&format!("[backplane]\n{text}")).expect_err(text);
            assert!(errors.to_string().starts_with(&format!("broker.toml:2: {key}: ")), "{errors}");
        }
    }
}
