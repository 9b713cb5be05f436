//! The payload check against serde_json: over objects made at random, over words of JSON in any order, and over
//! mutations of `corpus/payload`.
//!
//! It agrees in every verdict: what is accepted is what serde_json reads as an object, with the exceptions that the
//! contract of the module names, and the sender's name is the one that serde_json sees.
//!
//! The mutations go on for `WIGWAG_FUZZ_SECONDS` (5 if it is not set).

#[path = "corpus/mutation.rs"]
mod mutation;
#[path = "corpus/payload_oracle.rs"]
mod oracle;

use mutation::{Random, Steps, fuzz, samples};
use oracle::agree;
use proptest::{prelude::*, sample::select};

/// The samples, which are alice's signals, and the lines of `hostile.txt`, none of which is.
fn corpus() -> [Vec<Vec<u8>>; 2] {
    samples("payload", "json")
}

#[test]
fn samples_are_signals_and_hostile_lines_are_not() {
    for (payloads, signals) in corpus().iter().zip([true, false]) {
        for payload in payloads {
            assert_eq!(agree(payload), signals, "{}", String::from_utf8_lossy(payload));
        }
    }
}

/// What JSON is made of, and what only looks so.
#[rustfmt::skip]
const WORDS: [&str; 78] = [
    "{", "}", "[", "]", ":", ",", "\"", "\\", " ", "\n", "\t", "\0", "\u{feff}", "é", "ſ", "/", "'", "#",
    "null", "true", "false", "0", "-1", "1.5", "2e3", "-", ".", "e", "+", "01", "NaN", "1E999", "\u{c}",
    "\"username\"", "\"from\"", "\"alice\"", "\"bob\"", "\"username\":\"alice\"", "\"from\":\"alice\"", "\"from\":\"bob\"",
    "\"username\":\"bob\"", ",\"username\":\"alice\"", "{\"username\":\"alice\",", ",\"from\":\"alice\"}", "\"x\":", "\"x\":1,",
    "\"Username\":", "\"FROM\":", "\"uſername\":", "\"\\u0075sername\":", "\"fr\\u006fm\":", "\"\\u0061lice\"", "\"\"",
    "\\n", "\\r\\n", "\\\"", "\\\\", "\\/", "\\u0000", "\\u0061", "\\ud83d", "\\ude00", "\\uD83D\\uDE00", "\\u", "\\x41", "\\u00",
    "{}", "[]", "[[", "]]", "{\"a\":", "[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]", "{\"\":{\"\":{\"\":{\"\":", "}}}}", "username", "from", "alice",
];

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        // Mostly near the beginning, where the tags are, or the end, where they may be.
        let near = if random.below(2) == 0 { payload.len().min(40) } else { payload.len() };
        let other = &corpus[random.below(corpus.len())];
        Steps { words: &WORDS, longest: 60 }.step(random, &mut payload, near, other);
    }
    payload
}

#[test]
fn mutations() {
    let corpus = corpus().concat();
    let short: Vec<_> = corpus.iter().filter(|payload| payload.len() < 800).cloned().collect();
    fuzz("payloads", 0x0FFE_12A5_CA11_ED01, |random, run| {
        agree(&mutate(random, if run % 10 == 0 { &corpus } else { &short }))
    });
}

/// How a string may be written: each character as it is, or escaped.
fn written(text: &str) -> impl Strategy<Value = String> + use<> {
    let chars: Vec<char> = text.chars().collect();
    proptest::collection::vec(0..6u8, chars.len()).prop_map(move |ways| {
        let one = |(&char, way): (&char, u8)| match (char, way) {
            ('"' | '\\', 0..=4) => format!("\\{char}"),
            ('/', 4) => "\\/".into(),
            ('\n', 0..=4) => "\\n".into(),
            ('\0'..' ' | '"' | '\\', _) | (_, 5) => {
                char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
            _ => char.to_string(),
        };
        let inside: String = chars.iter().zip(ways).map(one).collect();
        format!("\"{inside}\"")
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 1 => select(vec![" ", "\n", "\t", "\r\n  "])]
}

fn any_string() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,8}", "[ -~]{0,40}", any::<String>(), Just("v=0\r\no=- 1 2\r\n".repeat(9))]
        .prop_flat_map(|text| written(&text))
}

fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any_string(),
        any::<f64>().prop_map(|n| if n.is_finite() { format!("{n:e}") } else { "1e999".into() }),
        any::<i64>().prop_map(|n| n.to_string()),
        select(vec!["null", "true", "false", "{}", "[]", "\"\\udfff\"", "{\"username\":\"bob\"}"])
            .prop_map(String::from),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        let member = (any_string(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            (proptest::collection::vec(inner, 0..4), space())
                .prop_map(|(v, s)| format!("[{s}{}]", v.join(&format!("{s},")))),
            (proptest::collection::vec(member, 0..4), space())
                .prop_map(|(v, s)| format!("{{{s}{}}}", v.join(&format!(",{s}")))),
        ]
    })
}

fn member(key: &str, name: &str) -> impl Strategy<Value = String> + use<> {
    (written(key), space(), written(name)).prop_map(|(key, space, name)| format!("{key}{space}:{space}{name}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever serde_json reads as an object with the sender's tag is accepted.
    #[test]
    fn objects_with_the_senders_tag_are_accepted(
        tag in prop_oneof![member("username", "alice"), member("from", "alice")],
        others in proptest::collection::vec(("\"[a-eg-tv-z][ -!#-\\[\\]-~]{0,9}\"", any_value()), 0..5),
        at in any::<proptest::sample::Index>(),
        space in space(),
        end in any::<proptest::sample::Index>(),
    ) {
        let mut members: Vec<String> = others.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
        members.insert(at.index(members.len() + 1), tag);
        let payload = format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")));
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&payload).is_ok(), "{payload}");
        prop_assert!(agree(payload.as_bytes()), "{payload}");
        agree(&payload.as_bytes()[..end.index(payload.len())]);
    }

    /// Tags of any number, spelling and name are judged as what serde_json sees.
    #[test]
    fn tags_are_what_a_parser_sees(
        members in proptest::collection::vec(
            (
                select(vec!["username", "from", "Username", "FROM", "u\u{17f}ername", "x", "user\0name", "from\0"]),
                select(vec!["alice", "alice", "alice", "bob", "Alice", "alice\0", "日本😀"]),
            ).prop_flat_map(|(key, name)| member(key, name)),
            0..4,
        ),
    ) {
        agree(format!("{{{}}}", members.join(",")).as_bytes());
    }

    /// Words of JSON in any order.
    #[test]
    fn words(words in proptest::collection::vec(select(&WORDS[..]), 0..20)) {
        agree(words.concat().as_bytes());
        agree(format!("{{\"username\":\"alice\",\"x\":{}}}", words.concat()).as_bytes());
        agree(format!("{{\"username\":\"alice\",\"x\":\"{}\"}}", words.concat()).as_bytes());
    }
}
