//! `wigwag check` and the manners of the command line: what is printed where, and the exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own for one test to run in.
fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).expect("the test directory is writable");
    path
}

fn wigwag(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
    command.args(arguments).current_dir(directory).env_clear().envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

#[test]
fn help_names_every_command() {
    let output = wigwag(&directory("help"), &["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    for command in ["serve", "check", "pub", "sub", "token", "user", "explain", "rooms", "room", "watch", "bench"] {
        let line = format!("\n  {command} ");
        assert!(stdout(&output).contains(&line), "{command} in\n{}", stdout(&output));
        assert_eq!(wigwag(&directory("help"), &[command, "--help"], &[]).status.code(), Some(0));
    }
    let version = wigwag(&directory("help"), &["--version"], &[]);
    assert_eq!(stdout(&version), format!("wigwag {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn files_that_the_configuration_names_have_to_be_there() {
    let here = directory("named-files");
    for (text, key) in [
        ("[auth]\nmethods = [\"users\"]\n[auth.users]\nfile = \"none.toml\"\n", "auth.users.file: none.toml"),
        ("[tls]\ncertificate = \"none.pem\"\nkey = \"none.key\"\n", "tls.certificate: none.pem"),
        ("[api]\nkeys_file = \"none.txt\"\n", "api.keys_file"),
    ] {
        std::fs::write(here.join("broker.toml"), text).expect("writable");
        let output = wigwag(&here, &["check"], &[]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{text}");
        assert!(stderr(&output).starts_with(key), "{key} in {}", stderr(&output));
    }
}

#[test]
fn what_nobody_knows_is_a_usage_error() {
    for arguments in [&["juggle"][..], &["check", "--juggle"], &["sub"], &["pub", "-m", "x"]] {
        let output = wigwag(&directory("usage"), arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(stderr(&output).contains("error: "), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn check_prints_what_is_in_effect_and_why() {
    let here = directory("check");
    std::fs::write(here.join("broker.toml"), "[sys]\ninterval = 20\n").expect("writable");
    std::fs::write(here.join("other.toml"), "[limits]\npacket = \"1MiB\"\n").expect("writable");

    let implied = wigwag(&here, &["check"], &[("WIGWAG_LOG__FORMAT", "json"), ("WIGWAG_PORT", "80")]);
    assert_eq!(implied.status.code(), Some(0), "{}", stderr(&implied));
    assert!(stdout(&implied).contains("\ninterval = \"20s\"  # broker.toml:2\n"), "{}", stdout(&implied));
    assert!(stdout(&implied).contains("\nformat = \"json\"  # WIGWAG_LOG__FORMAT\n"), "{}", stdout(&implied));
    assert!(stdout(&implied).contains("\nlisten = [\"127.0.0.1:8080\"]\n"), "{}", stdout(&implied));

    let named = wigwag(&here, &["check", "--config", "other.toml", "--http", "[::1]:1", "--http", "127.0.0.1:2"], &[]);
    assert_eq!(named.status.code(), Some(0), "{}", stderr(&named));
    assert!(stdout(&named).contains("\npacket = \"1MiB\"  # other.toml:2\n"), "{}", stdout(&named));
    assert!(stdout(&named).contains("\ninterval = \"10s\"\n"), "{}", stdout(&named));
    assert!(stdout(&named).contains("\nlisten = [\"[::1]:1\", \"127.0.0.1:2\"]  # --http\n"), "{}", stdout(&named));
}

#[test]
fn without_any_configuration_everything_is_default() {
    let output = wigwag(&directory("bare"), &["check"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!stdout(&output).contains("  # "), "{}", stdout(&output));
}

#[test]
fn a_wrong_configuration_is_reported_whole() {
    let here = directory("wrong");
    std::fs::write(here.join("broker.toml"), "[sys]\nintervall = 20\n[log]\nformat = 3\n").expect("writable");
    let output = wigwag(&here, &["check", "--workers", "many"], &[("WIGWAG_LIMITS__SESSIONS", "-1")]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert_eq!(
        stderr(&output),
        "broker.toml:2: sys.intervall is not known, did you mean sys.interval?\n\
         broker.toml:4: log.format: found 3, allowed: \"text\" or \"json\"\n\
         WIGWAG_LIMITS__SESSIONS: limits.sessions: found \"-1\", allowed: a whole number from 0 to 10000000\n\
         --workers: server.workers: found \"many\", allowed: 0 (one per core) or a whole number from 1 to 256\n"
    );
}

#[test]
fn a_named_file_must_be_there() {
    let output = wigwag(&directory("bare"), &["check", "-c", "nowhere.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "nowhere.toml: cannot be read: No such file or directory (os error 2)\n");
}
