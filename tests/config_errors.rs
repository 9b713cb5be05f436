//! What is said of a wrong configuration: the exact words, line by line.

use std::path::Path;

use wigwag::config::Config;

fn complaints(toml: &str) -> String {
    Config::from_toml_str(toml).expect_err(toml).to_string()
}

fn complaints_of_environment(variables: &[(&str, &str)]) -> String {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(None, variables).expect_err("a wrong environment").to_string()
}

#[test]
fn each_mistake_in_a_file() {
    let table = [
        ("[limits]\nconections = 5", "broker.toml:2: limits.conections is not known, did you mean limits.connections?"),
        ("[limits]\nexpiry = 5", "broker.toml:2: limits.expiry is not known, did you mean session.expiry?"),
        ("[limits]\nzebra = 5", "broker.toml:2: limits.zebra is not known"),
        ("\n[limit]\npacket = 1024", "broker.toml:2: [limit] is not known, did you mean [limits]?"),
        ("[zebra]", "broker.toml:1: [zebra] is not known"),
        ("workers = 2", "broker.toml:1: workers is not known, did you mean server.workers?"),
        ("server = 2", "broker.toml:1: server: found 2, allowed: a table: [server] and its keys on lines of their own"),
        (
            "[[server]]\nworkers = 2",
            "broker.toml:1: server: found a list, allowed: a table: [server] and its keys on lines of their own",
        ),
        (
            "[server]\nworkers = 257",
            "broker.toml:2: server.workers: found 257, allowed: 0 (one per core) or a whole number from 1 to 256",
        ),
        (
            "[server]\nworkers = \"two\"",
            "broker.toml:2: server.workers: found \"two\", allowed: 0 (one per core) or a whole number from 1 to 256",
        ),
        (
            "[server]\nworkers = 1.5",
            "broker.toml:2: server.workers: found 1.5, allowed: 0 (one per core) or a whole number from 1 to 256",
        ),
        (
            "[server]\n\nshutdown_grace = \"5 potatoes\"",
            "broker.toml:3: server.shutdown_grace: found \"5 potatoes\", allowed: a duration from 0 to \"1h\" (seconds, \
             or like \"500ms\", \"10s\", \"5m\", \"1h\")",
        ),
        (
            "[session]\nkeep_alive_max = \"1500ms\"",
            "broker.toml:2: session.keep_alive_max: found \"1500ms\", allowed: 0 (no cap) or a duration from \"1s\" to \
             \"18h\" in whole seconds (seconds, or like \"500ms\", \"10s\", \"5m\", \"1h\")",
        ),
        (
            "[limits]\npacket = 99999999999999999999",
            "broker.toml:2: limits.packet: found 99999999999999999999, allowed: a size from \"1KiB\" to \"256MiB\" \
             (bytes, or like \"64KiB\", \"1MiB\")",
        ),
        (
            "[limits]\npacket = -1",
            "broker.toml:2: limits.packet: found -1, allowed: a size from \"1KiB\" to \"256MiB\" (bytes, or like \
             \"64KiB\", \"1MiB\")",
        ),
        (
            "[limits]\nqueue_bytes = \"99999999999999999GiB\"",
            "broker.toml:2: limits.queue_bytes: found \"99999999999999999GiB\", allowed: a size from \"1KiB\" to \
             \"1GiB\" (bytes, or like \"64KiB\", \"1MiB\")",
        ),
        ("[limits]\ninflight = 0", "broker.toml:2: limits.inflight: found 0, allowed: a whole number from 1 to 65535"),
        (
            "[http]\nlisten = [\n  \"127.0.0.1:8080\",\n  \"localhost:8080\",\n]",
            "broker.toml:4: http.listen: found \"localhost:8080\", allowed: address:port like \"127.0.0.1:8080\", \
             \"0.0.0.0:8080\" or \"[::1]:8080\" (names are not looked up)",
        ),
        (
            "[http]\nlisten = 8080",
            "broker.toml:2: http.listen: found 8080, allowed: a list of address:port like \"127.0.0.1:8080\", \
             \"0.0.0.0:8080\" or \"[::1]:8080\" (names are not looked up)",
        ),
        (
            "[http]\npath = \"/api/mqtt\"",
            "broker.toml:2: http.path: found \"/api/mqtt\", allowed: a path like \"/mqtt\" of letters, digits and \
             -._~/, and not \"/\", \"/api\", \"/healthz\", \"/readyz\" or \"/metrics\"",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "broker.toml:2: log.level: found \"inof\", allowed: \"off\", \"error\", \"warn\", \"info\", \"debug\", \
             \"trace\", or directives like \"info,wigwag::http=debug\"",
        ),
        ("[log]\nformat = \"xml\"", "broker.toml:2: log.format: found \"xml\", allowed: \"text\" or \"json\""),
        ("[metrics]\nenabled = \"yes\"", "broker.toml:2: metrics.enabled: found \"yes\", allowed: true or false"),
        ("[metrics]\nenabled = 2026-11-20", "broker.toml:2: metrics.enabled: found 2026-11-20, allowed: true or false"),
        ("[http]\nlisten = [\"127.0.0.1:1883\"]", "broker.toml:2: http.listen: 127.0.0.1:1883 is also in mqtt.listen"),
        (
            "[http]\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:8080\"]",
            "broker.toml:2: http.listen: 0.0.0.0:8080 is within reach of other machines, where with auth.methods = \
             [\"open\"] anybody could be anyone: use \"token\", \"users\" or \"http\", or say auth.open_anywhere = true \
             (--open-anywhere)",
        ),
        (
            "[auth]\nmethods = [\"tokens\"]",
            "broker.toml:2: auth.methods: found \"tokens\", allowed: \"open\" or \"token\" or \"users\" or \"http\"",
        ),
        ("[auth]\nmethods = []", "broker.toml:2: auth.methods: empty: nobody could connect"),
        (
            "[auth]\nmethods = [\"open\", \"open\"]",
            "broker.toml:2: auth.methods: \"open\" lets everybody in, so what stands after it is never asked",
        ),
        (
            "[auth]\nmethods = [\"token\"]",
            "broker.toml:2: auth.methods: \"token\" needs a key: auth.token.secret, auth.token.keys or \
             auth.token.jwks_file",
        ),
        ("[auth]\nmethods = [\"users\"]", "broker.toml:2: auth.methods: \"users\" needs auth.users.file"),
        ("[auth]\nmethods = [\"http\"]", "broker.toml:2: auth.methods: \"http\" needs auth.http.url"),
        (
            "[auth.token]\njwks_file = \"keys.json\"",
            "broker.toml:2: auth.token.jwks_file: set, but auth.methods has no \"token\" that would use it",
        ),
        ("[auth.token]\nisuer = 3", "broker.toml:2: auth.token.isuer is not known, did you mean auth.token.issuer?"),
        ("[auth.tokn]\nissuer = []", "broker.toml:1: auth.tokn is not known"),
        (
            "[auth.token]\nsecret = \"hunter2\"",
            "broker.toml:2: auth.token.secret: found text of 7 bytes, allowed: text of at least 32 bytes, or \"\" for none",
        ),
        (
            "[[auth.token.keys]]\nkid = \"a\"\nalg = \"none\"",
            "broker.toml:3: auth.token.keys: found \"none\", allowed: alg = \"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"",
        ),
        (
            "[auth.token]\nkeys = [\n  { alg = \"HS256\", public_key_file = \"a.pem\" },\n]",
            "broker.toml:3: auth.token.keys: found HS256 with a public_key_file, allowed: one of secret, secret_file (for \
             HS256) and public_key_file (for RS256, ES256, EdDSA)",
        ),
        (
            "[auth.token]\nkeys = [{ alg = \"HS256\", secret = \"hunter2\" }]",
            "broker.toml:2: auth.token.keys: found text of 7 bytes, allowed: secret = text of at least 32 bytes",
        ),
        (
            "[auth.token]\nkeys = [{ alg = \"ES256\", url = \"x\" }]",
            "broker.toml:2: auth.token.keys: found \"url\" in a key, allowed: kid, alg, secret, secret_file, \
             public_key_file",
        ),
        (
            "[auth.http]\nurl = \"ftp://x\"",
            "broker.toml:2: auth.http.url: found \"ftp://x\", allowed: a URL like \"http://127.0.0.1:3000/mqtt\", or \
             \"\" for none",
        ),
        (
            "[tls]\ncertificate = \"a.pem\"",
            "broker.toml:2: tls.certificate: set without tls.key, which must name its private key",
        ),
        (
            "[tls]\nkey = \"a.pem\"",
            "broker.toml:2: tls.key: set without tls.certificate, which must name the certificate",
        ),
        (
            "[mqtt]\ntls_listen = [\"127.0.0.1:8883\"]",
            "broker.toml:2: mqtt.tls_listen: needs tls.certificate and tls.key, or --dev-tls for a self-signed \
             certificate",
        ),
    ];
    for (toml, expected) in table {
        assert_eq!(complaints(toml), expected, "for\n{toml}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_their_lines() {
    let toml =
        "[sys]\ninterval = true\n[http]\ntls_listen = [\"x\", \"127.0.0.1:1\", \"y\"]\ntsl = 1\n[log]\nformat = 1\n";
    let lines: Vec<_> = complaints(toml).lines().map(|line| line.split(' ').take(2).collect::<String>()).collect();
    let expected = [
        "broker.toml:2:sys.interval:",
        "broker.toml:4:http.tls_listen:",
        "broker.toml:4:http.tls_listen:",
        "broker.toml:5:http.tsl",
        "broker.toml:7:log.format:",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_not_toml_is_reported_by_line_and_alone() {
    let found = complaints("[limits]\npacket = \n[zebra]\nx = = 2\n");
    assert_eq!(
        found,
        "broker.toml:2: not TOML: string values must be quoted, expected literal string\nbroker.toml:4: not TOML: extra `=`, expected nothing"
    );
    assert_eq!(complaints("[log]\n[log]\n"), "broker.toml:2: not TOML: duplicate key");
}

#[test]
fn a_file_that_cannot_be_read() {
    let missing = Config::load(Some(Path::new("no/such/broker.toml")), []).expect_err("missing");
    assert_eq!(missing.to_string(), "no/such/broker.toml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn each_mistake_in_the_environment() {
    let table = [
        (
            ("WIGWAG_LIMITS__PACKET", "big"),
            "WIGWAG_LIMITS__PACKET: limits.packet: found \"big\", allowed: a size from \"1KiB\" to \"256MiB\" (bytes, or \
             like \"64KiB\", \"1MiB\")",
        ),
        (
            ("WIGWAG_LIMITS__PACKETS", "1KiB"),
            "WIGWAG_LIMITS__PACKETS is not known, did you mean WIGWAG_LIMITS__PACKET?",
        ),
        (
            ("WIGWAG__LIMITS__PACKET", "1KiB"),
            "WIGWAG__LIMITS__PACKET is not known, did you mean WIGWAG_LIMITS__PACKET?",
        ),
        (("WIGWAG_Limits__Packet", "1KiB"), "WIGWAG_Limits__Packet is not known, did you mean WIGWAG_LIMITS__PACKET?"),
        (("WIGWAG_X__Y", "1"), "WIGWAG_X__Y is not known"),
        (
            ("WIGWAG_AUTH__TOKEN__ISUER", "x"),
            "WIGWAG_AUTH__TOKEN__ISUER is not known, did you mean WIGWAG_AUTH__TOKEN__ISSUER?",
        ),
        (
            ("WIGWAG_METRICS__ENABLED", ""),
            "WIGWAG_METRICS__ENABLED: metrics.enabled: found \"\", allowed: true or false",
        ),
    ];
    for (variable, expected) in table {
        assert_eq!(complaints_of_environment(&[variable]), expected);
    }
}
