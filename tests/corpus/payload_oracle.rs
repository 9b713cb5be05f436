//! The verdict on a payload by way of serde_json, as slow and as plain as can be.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use wigwag::policy::payload::{DEPTH_MAX, Kind, check};

/// Asserts that the check says the same, and tells whether alice may send the payload as a signal.
#[track_caller]
pub fn agree(payload: &[u8]) -> bool {
    let judge = |kind, sender| {
        let verdict = check(payload, kind, sender).map_err(|error| error.reason().0);
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(verdict, self::verdict(payload, kind, sender), "{kind:?} from {sender:?}: {shown}\n{payload:x?}");
        verdict.is_ok()
    };
    judge(Kind::Json, None);
    judge(Kind::Json, Some("alice"));
    judge(Kind::Signal, None);
    judge(Kind::Signal, Some("alice"))
}

/// The MQTT 5.0 reason code that the payload is refused with.
fn verdict(payload: &[u8], kind: Kind, sender: Option<&str>) -> Result<(), u8> {
    let text = std::str::from_utf8(payload).map_err(|_| 0x99)?;
    let object: Object = serde_json::from_str(text).map_err(|_| 0x99)?;
    let times = |tag| object.tags.iter().filter(|(key, _)| key == tag).count();
    let [username, from] = [times("username"), times("from")];
    let differ = object.tags.iter().any(|(_, name)| *name != object.tags[0].1);
    let missing = kind == Kind::Signal && username + from == 0;
    if depth(text) > DEPTH_MAX as usize || object.key_with_nul || username > 1 || from > 1 || differ || missing {
        return Err(0x99);
    }
    match (object.tags.first(), sender) {
        (Some((_, name)), Some(sender)) if name != sender => Err(0x87),
        _ => Ok(()),
    }
}

/// What there is to know of an object. To read it fails on halves of surrogate pairs in its keys and tags, but not in
/// what is ignored.
struct Object {
    /// The tags, in any case, with their keys.
    tags: Vec<(String, String)>,
    key_with_nul: bool,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut object = Object { tags: Vec::new(), key_with_nul: false };
                while let Some(key) = members.next_key::<String>()? {
                    object.key_with_nul |= key.contains('\0');
                    if ["USERNAME", "FROM"].contains(&key.to_uppercase().as_str()) {
                        object.tags.push((key, members.next_value()?));
                    } else {
                        members.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// How deep the brackets of valid JSON are nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(b'\\') = bytes.find(|byte| matches!(byte, b'"' | b'\\')) {
                    bytes.next();
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
