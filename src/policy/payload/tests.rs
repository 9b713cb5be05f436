//! Payloads with their verdicts, rule by rule. Agreement with a parser is tested in `tests/payload_fuzz.rs`.

use super::{PayloadError::*, *};

type Verdict = Result<(), PayloadError>;

/// Judged as alice's.
fn json(payload: impl AsRef<[u8]>) -> Verdict {
    check(payload.as_ref(), Kind::Json, Some("alice"))
}

fn signal(payload: impl AsRef<[u8]>) -> Verdict {
    check(payload.as_ref(), Kind::Signal, Some("alice"))
}

#[track_caller]
fn all(verdict: Verdict, payloads: &[&str]) {
    for payload in payloads {
        assert_eq!(json(payload), verdict, "{payload}");
    }
}

#[test]
fn both_common_shapes_pass() {
    for payload in [
        r#"{"username":"alice","offer":{"type":"offer","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n"}}"#,
        r#"{"from":"alice","target":"bob","type":"ice","iceCandidate":{"candidate":"…","sdpMid":"0","sdpMLineIndex":0}}"#,
        r#"{"type":"candidate","label":0,"id":"0","candidate":"candidate:1","username":"alice"}"#,
        r#"{"username":"alice","sealed":"q83vASNFZ4k="}"#,
    ] {
        assert_eq!(signal(payload), Ok(()), "{payload}");
        assert_eq!(json(payload), Ok(()), "{payload}");
    }
}

#[test]
fn a_topic_that_asks_for_nothing_takes_anything() {
    for payload in [&b""[..], b"\xFF\0", br#"{"username":"bob"}"#] {
        assert_eq!(check(payload, Kind::Any, Some("alice")), Ok(()));
    }
}

#[test]
fn signals_carry_the_tag_and_other_json_may() {
    for payload in ["{}", r#"{"text":"hi"}"#, r#"{"offer":{"username":"alice"}}"#, r#"[{"username":"alice"}]"#] {
        assert!(signal(payload).is_err(), "{payload}");
    }
    assert_eq!(signal(r#"{"offer":{"username":"alice"},"to":"username"}"#), Err(TagMissing));
    all(Ok(()), &["{}", r#"{"text":"hi"}"#, r#"{"offer":{"username":"bob","from":1}}"#, r#"{"x":["username","bob"]}"#]);
}

#[test]
fn the_name_is_the_senders() {
    all(
        Err(Spoofed),
        &[
            r#"{"username":"bob"}"#,
            r#"{"from":"bob","x":"alice"}"#,
            r#"{"username":"bob","from":"bob"}"#,
            r#"{"username":""}"#,
            r#"{"username":"Alice"}"#,
            r#"{"username":"alice "}"#,
            r#"{"username":"alice~phone"}"#,
            r#"{"username":"alice\u0000"}"#,
            r#"{"username":"alice\ufeff"}"#,
            r#"{"username":"\\u0061lice"}"#,
            r#"{"\u0075sername":"bob"}"#,
            r#"{"Username":"bob"}"#,
            r#"{"FROM":"bob"}"#,
            r#"{"uſername":"bob"}"#,
            r#"{"u\u017fername":"bob"}"#,
        ],
    );
    for (name, tag) in [
        ("Ünï", "Ünï"),
        ("Ünï", r"\u00dcn\u00EF"),
        ("日本", r"\u65e5本"),
        ("😀", r"\ud83d\ude00"),
        ("😀", r"\uD83D\uDE00"),
        (r"a\b", r"a\\b"),
        (r#"a"b"#, r#"a\"b"#),
        ("a b", r"a\u0020b"),
    ] {
        let payload = format!(r#"{{"username":"{tag}"}}"#);
        assert_eq!(check(payload.as_bytes(), Kind::Signal, Some(name)), Ok(()), "{payload}");
        assert_eq!(signal(payload.as_bytes()), Err(Spoofed), "{payload}");
    }
    // The same letter in two normal forms is two names.
    assert_eq!(check("{\"from\":\"u\u{308}\"}".as_bytes(), Kind::Json, Some("ü")), Err(Spoofed));
}

#[test]
fn escapes_in_keys_and_names_are_decoded() {
    for payload in [
        r#"{"\u0075sername":"alice"}"#,
        r#"{"\u0075\u0073\u0065\u0072\u006e\u0061\u006D\u0065":"\u0061\u006C\u0069\u0063\u0065"}"#,
        r#"{"fro\u006d":"\u0061lice"}"#,
    ] {
        assert_eq!(signal(payload), Ok(()), "{payload}");
    }
    // What an unescaped key says is what it is.
    assert_eq!(signal(r#"{"\\u0075sername":"alice"}"#), Err(TagMissing));
}

#[test]
fn tags_agree_and_come_once() {
    all(
        Err(TagTwice),
        &[
            r#"{"username":"alice","username":"alice"}"#,
            r#"{"username":"alice","username":"bob"}"#,
            r#"{"from":"alice","x":0,"from":"alice"}"#,
            r#"{"username":"alice","\u0075sername":"bob"}"#,
            r#"{"\u0066rom":"alice","fr\u006fm":"alice"}"#,
        ],
    );
    all(
        Err(TagsDiffer),
        &[
            r#"{"username":"alice","from":"bob"}"#,
            r#"{"from":"bob","username":"alice"}"#,
            r#"{"username":"alice","Username":"bob"}"#,
            r#"{"uſername":"bob","username":"alice"}"#,
            r#"{"username":"alice","FROM":"\u0062ob"}"#,
        ],
    );
    all(
        Ok(()),
        &[
            r#"{"username":"alice","from":"alice"}"#,
            r#"{"username":"alice","from":"\u0061lice"}"#,
            r#"{"username":"alice","Username":"alice","USERNAME":"alice"}"#,
            r#"{"x":1,"x":2}"#,
            r#"{"usernam":"bob","username2":"bob","fro":"bob","to":"bob","":"bob","user name":"bob","user":"bob"}"#,
        ],
    );
}

#[test]
fn tags_are_strings() {
    for value in ["null", "1", "true", r#"["alice"]"#, r#"{"username":"alice"}"#, "alice", "'alice'", ""] {
        for key in ["username", "from", "From", r"\u0066rom"] {
            assert_eq!(json(format!(r#"{{"{key}":{value}}}"#)), Err(TagNotText), "{key} {value}");
        }
    }
    all(
        Err(TagNotText),
        &[r#"{"username":"\ud800"}"#, r#"{"username":"alice\uDC00\uD800"}"#, r#"{"from":"\ud83d\u0061lice"}"#],
    );
}

#[test]
fn keys_that_some_parsers_cut_short_are_refused() {
    all(
        Err(AmbiguousKey),
        &[
            r#"{"username\u0000":"bob"}"#,
            r#"{"username\u0000x":"bob","username":"alice"}"#,
            r#"{"username\ud800":"bob"}"#,
            r#"{"\udfffusername":"bob"}"#,
            r#"{"user\ude00\ud83dname":"bob"}"#,
        ],
    );
    all(Ok(()), &[r#"{"a\ud83d\ude00":1,"x":{"\ud800\u0000":"\udfff\u0000"}}"#]);
}

#[test]
fn case_matters_to_who_asks_for_a_tag() {
    for payload in [r#"{"Username":"alice"}"#, r#"{"FROM":"alice"}"#, r#"{"uſername":"alice"}"#] {
        assert_eq!((json(payload), signal(payload)), (Ok(()), Err(TagMissing)), "{payload}");
    }
}

#[test]
fn without_a_sender_the_structure_is_checked() {
    let check = |payload: &str, kind| check(payload.as_bytes(), kind, None);
    assert_eq!(check(r#"{"username":"bob"}"#, Kind::Signal), Ok(()));
    assert_eq!(check("{}", Kind::Signal), Err(TagMissing));
    assert_eq!(check("{}", Kind::Json), Ok(()));
    assert_eq!(check(r#"{"username":"bob","from":"eve"}"#, Kind::Json), Err(TagsDiffer));
    assert_eq!(check(r#"{"username":"bob","username":"bob"}"#, Kind::Json), Err(TagTwice));
    assert_eq!(check(r#"{"username":"\ud800"}"#, Kind::Json), Err(TagNotText));
    assert_eq!(check(r#"{"username":7}"#, Kind::Json), Err(TagNotText));
    assert_eq!(check("", Kind::Json), Err(NotAnObject));
}

#[test]
fn whatever_is_no_object_is_refused() {
    all(
        Err(NotAnObject),
        &[
            "",
            " ",
            "\n",
            "alice",
            "null",
            "1",
            r#""alice""#,
            "[]",
            r#"[{"username":"alice"}]"#,
            "}",
            "\u{feff}{}",
            "\u{a0}{}",
            "\u{c}{}",
            "\0{}",
            "/**/{}",
            "(){}",
        ],
    );
    all(Ok(()), &["{}", " \t\r\n{ \t\r\n} \t\r\n", r#" { "username" : "alice" , "x" : [ 1 , 2 ] } "#]);
}

#[test]
fn nothing_follows_the_object() {
    all(
        Err(Malformed),
        &[
            r#"{"username":"alice"}{"username":"bob"}"#,
            "{}{}",
            "{},{}",
            "{}]",
            "{}}",
            "{}0",
            "{}x",
            "{}\0",
            "{}//",
            "{}\n{}",
            "{}\u{feff}",
            "{}\u{1e}",
        ],
    );
}

#[test]
fn the_grammar_is_kept() {
    // One payload in each word.
    let broken = r#"
        { {] {,} {:} {1:1} {a:1} {'a':1} {null:1} {[]:1} {"a"} {"a":} {"a":1 {"a":1,} {"a":1,,"b":2} {,"a":1}
        {"a"::1} {"a":1:2} {"a":1;"b":2} {"a":1"b":2} {"a":"b""c"} {"a",1} {"a":/**/1} {"a":1#} {"a":1}}
    "#;
    for payload in broken.split_whitespace() {
        assert_eq!(json(payload), Err(Malformed), "{payload}");
    }
    all(Err(Malformed), &[r#"{"a" "b"}"#, r#"{"a":1 "b":2}"#, "{\"a\":1//\n}", "{\"a\":1#\n}", "{\"a\"\u{a0}:1}"]);

    let broken = r#"
        [ ] [,] [1,] [,1] [1:2] [} [1} {] [[] []] ["a":1]
        nul nulll Null NULL nil tru true1 falsee True undefined NaN Infinity -Infinity
        - +1 01 -01 00 1. .1 1.e1 1e 1e+ 1E- 1e1.5 1.2.3 --1 1- 0x10 1_000 1n ١
        'a' `a` a "a "a\" \u0061 "\"
    "#;
    for value in broken.split_whitespace().chain(["[1 2]", "1 2", "- 1", "1 .5", "n ull"]) {
        assert_eq!(json(format!(r#"{{"a":{value}}}"#)), Err(Malformed), "{value}");
        assert_eq!(json(format!(r#"{{"a":[{value}]}}"#)), Err(Malformed), "[{value}]");
    }

    let sound = r#"
        [] {} [[],{}] null true false "" ["",[1,{"b":[]}],{}]
        0 -0 10 -1.5 0.0 1e5 1E+5 0e-0 1.25e10 1e999 -123456789012345678901234567890
    "#;
    for value in sound.split_whitespace() {
        assert_eq!(json(format!(r#"{{"a":{value}}}"#)), Ok(()), "{value}");
        assert_eq!(json(format!("{{\"a\":[\n{value} ,{value}\t]}}")), Ok(()), "[{value}]");
    }
}

/// A string is looked at in another way when the payload has line ends only for escapes.
#[test]
fn strings_are_closed_and_their_escapes_valid() {
    for around in ["", r"\r\n", r"\t", "\\\"", r"\\", "é"] {
        let good = r"a \\ \\\\ \/ \b\f\n\r\t \u0000 \uabCD \ud800 \udc00x";
        for good in good.split(' ').chain(["", " ", "\u{7f}", "\u{2028}"]) {
            assert_eq!(json(format!(r#"{{"a":"{around}{good}{around}"}}"#)), Ok(()), "{around}{good}");
            assert_eq!(json(format!(r#"{{"x":{{"{around}{good}":0}}}}"#)), Ok(()), "{around}{good}");
        }
        for bad in [
            r"\a", r"\'", r"\0", r"\x41", r"\U0041", r"\u", r"\u1", r"\u123", r"\u123g", r"\u 123", r"\u+123",
            r"\u-123", r"\uD83", r"\é", r"\{", "\\\n", "\0", "\n", "\r", "\t", "\u{1f}", "\u{1b}", r#"""#,
        ] {
            for payload in [
                format!(r#"{{"a":"{around}{bad}"}}"#),
                format!(r#"{{"a":"{around}{bad}{around}x"}}"#),
                format!(r#"{{"{around}{bad}":"a"}}"#),
                format!(r#"{{"x":{{"{around}{bad}":0}}}}"#),
            ] {
                assert_eq!(json(&payload), Err(Malformed), "{payload:?}");
            }
        }
    }
    for end in [
        r#"{"a":"\"}"#,
        r#"{"a":"\\\"}"#,
        r#"{"a":"\r\n\"}"#,
        r#"{"a"#,
        r#"{"a":"b"#,
        r#"{"a":"b\"#,
        r#"{"a":"b\""#,
        r#"{"a":"b\u12"#,
        r#"{"username"#,
        r#"{"username":"alice"#,
    ] {
        assert_eq!(json(end), Err(Malformed), "{end}");
    }
}

#[test]
fn payloads_are_utf8() {
    for bad in [
        &b"\xFF"[..],
        b"\x80",
        b"\xC3",
        b"\xC0\xA2",         // an overlong quote
        b"\xC1\xA1",         // an overlong a
        b"\xE0\x80\xA2",     // again
        b"\xED\xA0\x80",     // a surrogate
        b"\xF4\x90\x80\x80", // beyond U+10FFFF
        b"\xF8\x88\x80\x80\x80",
    ] {
        for around in [
            [&b"{\"a\":\""[..], b"\"}"],
            [b"{\"", b"\":0}"],
            [b"{\"username\":\"alice", b"\"}"],
            [b"{}", b""],
            [b"", b"{}"],
        ] {
            assert_eq!(json([around[0], bad, around[1]].concat()), Err(NotUtf8), "{bad:x?}");
        }
    }
    assert_eq!(json(b"{\"username\":\"\xE1lice\"}"), Err(NotUtf8), "Latin-1");
    assert_eq!(json(b"{\0\"\0a\0\"\0:\x001\0}\0"), Err(Malformed), "UTF-16");
    assert_eq!(json(b"\xEF\xBB\xBF{}"), Err(NotAnObject), "a byte order mark");
}

#[test]
fn sixty_four_deep_and_no_deeper() {
    let nested = |depth: usize, open: &str, close: &str| {
        format!(r#"{{"username":"alice","x":{}0{}}}"#, open.repeat(depth - 1), close.repeat(depth - 1))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("[0,", "]"), (r#"{"username":"bob","a":"#, r#","from":0}"#)] {
        assert_eq!(signal(nested(64, open, close)), Ok(()));
        assert_eq!(signal(nested(65, open, close)), Err(TooDeep));
    }
    // What is closed does not count.
    assert_eq!(signal(format!(r#"{{"username":"alice","x":[{}0]}}"#, "[[]],{\"a\":{}},".repeat(1000))), Ok(()));
    // Which kind of bracket is open is known at every depth.
    for at in [0, 1, 31, 62] {
        let mut kinds = ["]"; 63];
        kinds[at] = "}";
        assert_eq!(json(format!(r#"{{"x":{}0{}}}"#, "[".repeat(63), kinds.concat())), Err(Malformed));
    }
}

#[test]
fn a_megabyte_of_anything_ends() {
    for (unit, verdict) in [
        ("[", NotAnObject),
        ("{", Malformed),
        (r#"{"a":"#, TooDeep),
        ("\"", NotAnObject),
        ("\\", NotAnObject),
        (" ", NotAnObject),
        ("\0", NotAnObject),
    ] {
        assert_eq!(json(unit.repeat((1 << 20) / unit.len())), Err(verdict), "{unit}");
    }
    for unit in ["[", "]", "\"", "\\", "\\\"", ",", "0", " ", "\\u0061", "é", "[]"] {
        let unit = unit.repeat((1 << 20) / unit.len());
        assert!(json(format!(r#"{{"a":{unit}"#)).is_err());
        assert!(json(format!(r#"{{"a":"{unit}"#)).is_err());
    }
}

#[test]
fn refusals_say_which_code() {
    assert_eq!(Refusal::from(Spoofed).reason, ReasonCode(0x87));
    for error in [NotUtf8, NotAnObject, Malformed, TooDeep, AmbiguousKey, TagNotText, TagTwice, TagsDiffer, TagMissing]
    {
        assert_eq!(Refusal::from(error).reason, ReasonCode(0x99), "{error:?}");
    }
    assert!(TooDeep.what().contains(&DEPTH_MAX.to_string()));
}

/// The faster way to find the end of a string is taken by the whole payload or not at all.
#[test]
fn one_escape_does_not_hide_another() {
    all(
        Ok(()),
        &[r#"{"a":"\r\n","b":"\"","c":"\\"}"#, r#"{"a":"\\","username":"alice"}"#, r#"{"a":"\\\"","b":"\\\\"}"#],
    );
    all(Err(Spoofed), &[r#"{"a":"\\","username":"bob","b":"\\"}"#, r#"{"a":"\"","username":"bob","b":"\""}"#]);
    all(Ok(()), &[r#"{"a":"\",\"username\":\"bob\",\"b\":\""}"#, r#"{"a":"\\\",\"username\":\"bob"}"#]);
}
