//! Which pages may talk to this server. A browser sends the cookies and reaches the addresses of whoever looks at a
//! page, so a WebSocket from a page of another host is refused unless the operator allows that host (RFC 6455 10.2),
//! and so is a name that somebody has pointed at a loopback address (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, Request, StatusCode, header},
};

use crate::config::AllowedOrigin;

/// Status and a sentence.
pub type Refusal = (StatusCode, &'static str);

const FOREIGN_PAGE: Refusal =
    (StatusCode::FORBIDDEN, "pages of this origin may not connect here; see http.origins in the configuration\n");
const NO_ORIGIN: Refusal =
    (StatusCode::FORBIDDEN, "an Origin header is required here; see http.origin_required in the configuration\n");
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

/// Refuses a request from this machine that names another: that is what a page does whose name was pointed here.
pub fn check_host<B>(request: &Request<B>, trusted: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|remote| remote.ip().to_canonical());
    match (remote, host_name(request.headers())) {
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

/// The host that a request names, without its port.
fn host_name(headers: &HeaderMap) -> Option<&str> {
    Some(split_port(headers.get(header::HOST)?.to_str().ok()?).0)
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
}
