//! Which pages may talk to this server. A browser sends the cookies and reaches the addresses of whoever looks at a
//! page, so a WebSocket from a page of another host is refused unless the operator allows that host (RFC 6455 10.2),
//! and so is a name that somebody has pointed at a loopback address (DNS rebinding).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode, Version, header},
};

use crate::config::AllowedOrigin;

/// Status and a sentence.
pub type Refusal = (StatusCode, &'static str);

const FOREIGN_PAGE: Refusal =
    (StatusCode::FORBIDDEN, "pages of this origin may not connect here; see http.origins in the configuration\n");
const NO_ORIGIN: Refusal =
    (StatusCode::FORBIDDEN, "an Origin header is required here; see http.origin_required in the configuration\n");
const NO_HOST: Refusal = (StatusCode::BAD_REQUEST, "a request has one Host header, and in it a host\n");
const FOREIGN_HOST: Refusal = (
    StatusCode::FORBIDDEN,
    "this machine was addressed by a name that is not its own; behind a proxy, see server.trusted_proxies in the \
     configuration\n",
);

/// Judges the Origin of a WebSocket handshake. A client that sends none is not a browser.
pub fn check_origin(headers: &HeaderMap, allowed: &[AllowedOrigin], required: bool) -> Result<(), Refusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return if required { Err(NO_ORIGIN) } else { Ok(()) };
    };
    let origin = origin.to_str().ok().and_then(split_origin).filter(|_| origins.next().is_none());
    let host = host_name(headers);
    let matches = |(scheme, origin_host, port): (&str, &str, Option<&str>)| {
        allowed.iter().any(|allowed| match allowed {
            AllowedOrigin::Any => true,
            AllowedOrigin::SameHost => host.is_some_and(|host| same_host(host, origin_host)),
            AllowedOrigin::Exact(exact) => split_origin(exact).is_some_and(|exact| {
                exact.0.eq_ignore_ascii_case(scheme) && exact.1.eq_ignore_ascii_case(origin_host) && exact.2 == port
            }),
        })
    };
    // `null`, two origins and what is no origin match nothing, except where everything does.
    match origin {
        Some(origin) if matches(origin) => Ok(()),
        None if allowed.contains(&AllowedOrigin::Any) => Ok(()),
        _ => Err(FOREIGN_PAGE),
    }
}

/// Refuses a request that names no host (RFC 9112 3.2), and one from this machine that names another: that is what a
/// page does whose name was pointed here.
pub fn check_host<B>(request: &Request<B>, trusted: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|remote| remote.ip().to_canonical());
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (remote, host_name(request.headers())) {
        // HTTP/1.0 does without, and HTTP/2 has another place for it.
        (_, None) if hosts > 0 || request.version() == Version::HTTP_11 => Err(NO_HOST),
        _ if hosts > 1 => Err(NO_HOST),
        (Some(remote), Some(host)) if remote.is_loopback() && !trusted(remote) && !is_loopback(host) => {
            Err(FOREIGN_HOST)
        }
        _ => Ok(()),
    }
}

/// Scheme, host and port of `scheme://host[:port]`, and of nothing longer.
fn split_origin(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let (host, port) = split_port(rest);
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', '?', '#', '@', '\\']);
    (plain(scheme) && plain(host)).then_some((scheme, host, port))
}

/// The host that a request names, without its port, if it is a host.
fn host_name(headers: &HeaderMap) -> Option<&str> {
    let (host, port) = split_port(headers.get(header::HOST)?.to_str().ok()?);
    let digits = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    Some(host).filter(|host| is_host(host) && port.is_none_or(digits))
}

/// RFC 3986 3.2.2, and not empty: a web address has a host.
fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !host.is_empty() && host.bytes().all(allowed)
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Whether two names are one host, whatever the port: on a loopback address, all names for it are one.
fn same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || (is_loopback(one) && is_loopback(other))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.trim_end_matches('.');
    bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        || host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allows(allowed: &[AllowedOrigin], host: &str, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header value"));
        headers.insert(header::ORIGIN, origin.parse().expect("a header value"));
        check_origin(&headers, allowed, false).is_ok()
    }

    #[test]
    fn a_page_of_the_same_host_may_connect_whatever_its_port() {
        let same = [AllowedOrigin::SameHost];
        for (host, origin) in [
            ("call.example:8080", "http://call.example:8080"),
            ("call.example", "https://call.example"),
            ("call.example:8080", "https://CALL.example:5173"),
            ("127.0.0.1:8080", "http://localhost:5173"),
            ("localhost:8080", "http://[::1]:8080"),
            ("app.localhost:8080", "http://127.0.0.1"),
            ("[2001:db8::1]:8080", "http://[2001:db8::1]"),
        ] {
            assert!(allows(&same, host, origin), "{host} {origin}");
        }
    }

    #[test]
    fn a_page_of_another_host_may_not() {
        let same = [AllowedOrigin::SameHost];
        for (host, origin) in [
            ("call.example", "https://evil.example"),
            ("call.example", "https://call.example.evil"),
            ("call.example", "https://evil-call.example"),
            ("call.example", "https://call.example@evil.example"),
            ("call.example", "https://evil.example/call.example"),
            ("call.example", "null"),
            ("call.example", ""),
            ("call.example", "call.example"),
            ("127.0.0.1:8080", "http://localhost.evil"),
            ("localhost:8080", "http://127.0.0.1.evil.example"),
        ] {
            assert!(!allows(&same, host, origin), "{host} {origin}");
        }
        assert!(!allows(&same, "call.example", &format!("https://{}", "a".repeat(10_000))));
    }

    #[test]
    fn an_operator_allows_origins_exactly_or_all() {
        let exact = [AllowedOrigin::Exact("https://app.example".into())];
        assert!(allows(&exact, "signal.example", "https://app.example"));
        assert!(!allows(&exact, "signal.example", "http://app.example"));
        assert!(!allows(&exact, "signal.example", "https://app.example:444"));
        assert!(!allows(&exact, "signal.example", "https://signal.example"), "the list says all there is");
        assert!(allows(&[AllowedOrigin::Any], "signal.example", "null"));
        assert!(!allows(&[], "signal.example", "https://signal.example"));
    }

    #[test]
    fn who_sends_no_origin_is_no_browser() {
        let headers = HeaderMap::new();
        assert_eq!(check_origin(&headers, &[AllowedOrigin::SameHost], false), Ok(()));
        assert_eq!(check_origin(&headers, &[AllowedOrigin::SameHost], true), Err(NO_ORIGIN));
    }

    #[test]
    fn a_name_that_was_pointed_at_loopback_is_refused() {
        let from = |remote: &str, host: &str, trusted: bool| {
            let mut request = Request::builder().header(header::HOST, host).body(()).expect("a request");
            let remote: SocketAddr = remote.parse().expect("an address");
            request.extensions_mut().insert(ConnectInfo(remote));
            check_host(&request, |_| trusted)
        };
        assert_eq!(from("127.0.0.1:5000", "localhost:8080", false), Ok(()));
        assert_eq!(from("[::1]:5000", "[::1]:8080", false), Ok(()));
        assert_eq!(from("127.0.0.1:5000", "evil.example:8080", false), Err(FOREIGN_HOST));
        assert_eq!(from("127.0.0.1:5000", "call.example", true), Ok(()), "a local proxy that is trusted");
        assert_eq!(from("192.0.2.7:5000", "call.example", false), Ok(()));
    }

    /// RFC 9112 3.2
    #[test]
    fn a_request_names_one_host() {
        let with = |hosts: &[&[u8]], version: Version| {
            let mut request = Request::builder().version(version).body(()).expect("a request");
            for host in hosts {
                let host = HeaderValue::from_bytes(host).expect("a header value");
                request.headers_mut().append(header::HOST, host);
            }
            check_host(&request, |_| false)
        };
        for host in
            ["call.example", "call.example:8080", "call.example.", "a_b", "192.0.2.7", "[::1]:80", "[::1]", "a:"]
        {
            assert_eq!(with(&[host.as_bytes()], Version::HTTP_11), Ok(()), "{host}");
        }
        let bad: [&[u8]; 14] = [
            b"",
            b":80",
            b"localhost\xFF",
            "local\u{200D}host".as_bytes(),
            b"local host",
            b"user@localhost",
            b"localhost/",
            b"localhost?",
            b"localhost:http",
            b"localhost:808080",
            b"::1",
            b"[::1",
            b"[localhost]",
            b"[::1]x:80",
        ];
        for host in bad {
            assert_eq!(with(&[host], Version::HTTP_11), Err(NO_HOST), "{:?}", String::from_utf8_lossy(host));
        }
        assert_eq!(with(&[b"a", b"a"], Version::HTTP_11), Err(NO_HOST));
        assert_eq!(with(&[], Version::HTTP_11), Err(NO_HOST));
        assert_eq!(with(&[], Version::HTTP_10), Ok(()));
        assert_eq!(with(&[], Version::HTTP_2), Ok(()));
    }
}
