//! `wigwag token`, `wigwag token inspect`, `wigwag user hash`, and `wigwag explain`, which says what a token is good for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SECRET: &str = "an HMAC secret of more than 32 bytes";

/// A directory of its own for one test to run in, with a configuration.
fn directory(name: &str, broker: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli_token").join(name);
    std::fs::create_dir_all(&path).expect("the test directory is writable");
    std::fs::write(path.join("broker.toml"), broker).expect("the test directory is writable");
    path
}

fn with_secret(name: &str) -> PathBuf {
    directory(name, &format!("[auth]\nmethods = [\"token\"]\n[auth.token]\nsecret = \"{SECRET}\"\n"))
}

fn wigwag(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
    command.args(arguments).current_dir(directory).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // Who does not read his input may be gone before it is written.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the binary ends")
}

fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn refused(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

#[test]
fn a_token_is_minted_alone_and_explained() {
    let here = with_secret("mint");
    let arguments = [
        "token",
        "--user",
        "alice",
        "--room",
        "demo:join",
        "--room",
        "standup-*:join,admin",
        "--publish",
        "app/alice/#",
        "--role",
        "observe",
        "--ttl",
        "90m",
        "--claim",
        "tenant=acme",
        "--id",
        "t-1",
    ];
    let minted = wigwag(&here, &arguments, "");
    let token = printed(&minted).trim_end();
    assert_eq!(token.split('.').count(), 3);
    assert!(!token.contains(char::is_whitespace));

    for (arguments, input) in [
        (vec!["token", "inspect", token], ""),
        (vec!["token", "inspect", "-"], token),
        (vec!["token", "inspect"], token),
    ] {
        let explained = wigwag(&here, &arguments, input);
        let text = printed(&explained);
        for line in [
            "header     alg HS256, typ JWT",
            "user       alice",
            "id         t-1",
            "room       demo: join",
            "room       standup-*: join, admin",
            "publishes  app/alice/#",
            "roles      observe",
            "also       tenant = acme",
            "verdict    good: signed by a key of the configuration, in time, for this server",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let expires = text.lines().find(|line| line.starts_with("expires    in 1 h ")).expect("when it ends");
        assert!(expires.ends_with("GMT)"), "{expires}");
        assert!(!text.contains("problem") && !text.contains(token), "{text}");
    }
}

#[test]
fn what_the_configuration_asks_for_is_in_it() {
    let here = directory(
        "config",
        "[auth]\nmethods = [\"token\"]\n[auth.token]\nissuer = [\"me\", \"you\"]\naudience = [\"rooms\"]\n\
             [[auth.token.keys]]\nkid = \"2026\"\nalg = \"HS256\"\nsecret_file = \"secret\"\n",
    );
    std::fs::write(here.join("secret"), format!("{SECRET}\n")).expect("writable");
    let minted = wigwag(&here, &["token", "-u", "alice~phone"], "");
    let explained = wigwag(&here, &["token", "inspect"], printed(&minted));
    for line in ["header     alg HS256, kid 2026, typ JWT", "issuer     me", "audience   rooms", "grants     none"] {
        assert!(printed(&explained).lines().any(|found| found == line), "{line} in\n{}", printed(&explained));
    }
}

#[test]
fn private_keys_sign_and_public_ones_check() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    for (alg, name) in [("RS256", "rs256"), ("ES256", "es256"), ("EdDSA", "eddsa")] {
        let public = keys.join(format!("{name}.public.pem"));
        let broker = format!(
            "[auth]\nmethods = [\"token\"]\n[auth.token]\nkeys = [{{ kid = \"k\", alg = \"{alg}\", public_key_file = {:?} }}]\n",
            public.to_str().expect("UTF-8")
        );
        let here = directory(name, &broker);
        let private = keys.join(format!("{name}.private.pem"));
        let private = private.to_str().expect("UTF-8");
        let minted = wigwag(&here, &["token", "-u", "alice", "--key-file", private, "--kid", "k"], "");
        let explained = wigwag(&here, &["token", "inspect"], printed(&minted));
        assert!(
            printed(&explained).contains(&format!("header     alg {alg}, kid k, typ JWT\n")),
            "{}",
            printed(&explained)
        );
        let without = wigwag(&here, &["token", "-u", "alice"], "");
        assert!(refused(&without, 2).starts_with("no key to sign with: --key-file FILE"));
    }
}

#[test]
fn a_token_of_others_is_explained_and_not_accepted() {
    let here = with_secret("others");
    let other = "another HMAC secret of over 32 bytes";
    let minted = wigwag(&here, &["token", "-u", "alice", "--secret", other], "");
    let explained = wigwag(&here, &["token", "inspect"], printed(&minted));
    assert_eq!(refused(&explained, 1), "this configuration does not accept the token\n");
    let text = std::str::from_utf8(&explained.stdout).expect("UTF-8");
    assert!(text.contains("verdict    not accepted: the signature is of none of the configured keys\n"), "{text}");

    let bare = directory("bare", "");
    let unchecked = wigwag(&bare, &["token", "inspect"], printed(&minted));
    assert!(printed(&unchecked).contains("verdict    not checked: no keys in the configuration\n"));

    // {"alg":"none"} and {"exp":1,"rooms":{"a/b":["fly"]},"x":"\u001b[31m"}
    let strange = "eyJhbGciOiJub25lIn0.eyJleHAiOjEsInJvb21zIjp7ImEvYiI6WyJmbHkiXX0sIngiOiJcdTAwMWJbMzFtIn0.";
    let explained = wigwag(&here, &["token", "inspect", strange], "");
    refused(&explained, 1);
    let text = std::str::from_utf8(&explained.stdout).expect("UTF-8");
    for part in [
        "expires    ",
        " ago (Thu, 01 Jan 1970 00:00:01 GMT)\n",
        "problem    grants nothing: rooms: \"a/b\" can be no room",
        "\"fly\" is not join, listen, admin or members=N",
        "also       x = \\u{1b}[31m\n",
        "verdict    not accepted: alg is not HS256, RS256, ES256 or EdDSA\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let no_token = wigwag(&here, &["token", "inspect", "hello"], "");
    assert_eq!(refused(&no_token, 1), "not a token: not three parts in base64url with JSON objects in the first two\n");
}

#[test]
fn mistakes_are_not_minted() {
    let here = with_secret("mistakes");
    let table: &[(&[&str], &str)] = &[
        (&["token"], "--user <NAME>"),
        (&["token", "-u", "a/b"], "--user \"a/b\": a name has"),
        (&["token", "-u", "a", "-r", "demo"], "rights are missing"),
        (&["token", "-u", "a", "-r", "demo:fly"], "rooms: \"demo\": \"fly\" is not join, listen, admin or members=N"),
        (&["token", "-u", "a", "-r", "a/b:join"], "rooms: \"a/b\" can be no room"),
        (&["token", "-u", "a", "--publish", "a/#/b"], "publish: \"a/#/b\" is no topic filter"),
        (&["token", "-u", "a", "--role", "king"], "roles: \"king\" is not observe or service"),
        (&["token", "-u", "a", "--ttl", "0"], "a duration like"),
        (&["token", "-u", "a", "--ttl", "9999d"], "a duration like"),
        (&["token", "-u", "a", "--ttl", "1w"], "a duration like"),
        (&["token", "-u", "a", "--claim", "exp=1"], "exp is not set like this"),
        (&["token", "-u", "a", "--secret", "short"], "--secret: a secret has at least 32 bytes"),
        (&["token", "-u", "a", "--key-file", "nowhere"], "--key-file nowhere: No such file"),
        (&["token", "-u", "a", "-c", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ];
    for (arguments, expected) in table {
        let output = wigwag(&here, arguments, "");
        assert!(refused(&output, 2).contains(expected), "{arguments:?}: {}", refused(&output, 2));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_password_is_hashed_for_the_file_of_users() {
    let here = directory("hash", "");
    let first = wigwag(&here, &["user", "hash"], "wonder land\n");
    let hash = printed(&first).trim_end();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let second = wigwag(&here, &["user", "hash"], "wonder land");
    assert_ne!(hash, printed(&second).trim_end(), "each has a salt of its own");
    assert_eq!(refused(&wigwag(&here, &["user", "hash"], "\n"), 2), "an empty password is none\n");
}

#[test]
fn a_secret_is_shown_by_nothing() {
    let here = with_secret("hidden");
    let check = wigwag(&here, &["check"], "");
    assert!(printed(&check).contains("secret = \"(hidden)\"  # broker.toml:4\n"), "{}", printed(&check));
    std::fs::write(here.join("copy.toml"), printed(&check)).expect("writable");
    let copied = wigwag(&here, &["check", "-c", "copy.toml"], "");
    assert!(
        refused(&copied, 2).contains("auth.token.secret: found text of 8 bytes, allowed: text of at least 32 bytes")
    );
    assert!(!printed(&check).contains(SECRET));
}

#[test]
fn what_a_token_is_good_for_is_explained_row_by_row() {
    let here = with_secret("explain");
    let token =
        printed(&wigwag(&here, &["token", "-u", "alice", "-r", "demo:join", "--publish", "app/a/#"], "")).to_owned();
    let token = token.trim();
    let explain = |asked: &[&str]| wigwag(&here, &[&["explain", "--token", token], asked].concat(), "");
    let yes: &[(&[&str], &str)] = &[
        (&["--joined", "demo", "publish", "rooms/demo/signal"], "as signal, delivered at QoS 1, raised to the"),
        (&["subscribe", "rooms/demo/signal"], "allowed, at QoS 1, joins \"demo\""),
        (&["subscribe", "rooms/demo/presence/+"], "presence       rooms/{room}/presence/{user}  matches all of it"),
        (&["subscribe", "users/alice/errors", "-q", "2"], "allowed, at QoS 0"),
        (&["publish", "app/a/b", "-q", "2"], "as app, delivered at QoS 2"),
        (&["--user", "alice~phone", "subscribe", "rooms/demo/signal/alice~phone"], "alice~phone asks to subscribe"),
    ];
    for (asked, part) in yes {
        let output = explain(asked);
        let text = printed(&output);
        assert!(text.contains(part), "{asked:?}: {part} in\n{text}");
    }
    let no: &[(&[&str], &str)] = &[
        (&["publish", "rooms/demo/signal"], "refused: join the room first"),
        (&["publish", "rooms/other/signal"], "refused: not allowed to publish here"),
        (&["publish", "app/a/b", "--retain"], "refused: not allowed to retain here"),
        (&["--joined", "demo", "publish", "rooms/demo/chat", "--size", "8193"], "refused: the payload is larger"),
        (&["subscribe", "rooms/demo/#"], "refused: the filter reaches topics that you may not read"),
        (&["subscribe", "$share/g/rooms/demo/chat"], "refused: no shared subscriptions to this topic"),
        (&["subscribe", "elsewhere"], "refused: no rule allows this topic"),
        (&["--user", "bob", "publish", "app/a/b"], "would not be let in (0x87): the user name must be"),
    ];
    for (asked, part) in no {
        let output = explain(asked);
        let text = refused(&output, 1);
        assert!(text.contains(part), "{asked:?}: {part} in\n{text}");
    }
    for nonsense in [["publish", "a/#"], ["subscribe", "a#"]] {
        refused(&explain(&nonsense), 2);
    }
    let open = directory("explain-open", "");
    let believed = wigwag(&open, &["explain", "-u", "bob", "publish", "rooms/demo/signal"], "");
    assert!(printed(&believed).contains("allowed, as signal"), "a stranger may, in open mode");
    let listed = wigwag(&open, &["explain", "-u", "x\u{202e}y", "subscribe", "users/\u{202e}/inbox"], "");
    refused(&listed, 1);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains('\u{202e}'), "what turns text around is escaped");
}
