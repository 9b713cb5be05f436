//! Who a connection really comes from, where a proxy stands in between: PROXY protocol version 2 in front of the first
//! byte, and `X-Forwarded-For` in HTTP. Both are believed from the operator's `server.trusted_proxies` only.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::http::HeaderMap;
use ipnet::IpNet;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The twelve bytes with which a PROXY version 2 header begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header that is read: addresses and a few hundred bytes of what a load balancer adds.
const MOST: usize = 1024;

/// Whether `address` is one of the operator's proxies.
pub fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// Reads a PROXY header from a trusted proxy, if there is one: nothing that is spoken here begins with a carriage
/// return. Returns the address it names; `None` where it names none (a health check of the proxy itself).
///
/// # Errors
/// What was announced as a header and is none.
pub async fn read_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] != SIGNATURE[0] {
        return Ok(None);
    }
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if fixed[..12] != SIGNATURE || fixed[12] >> 4 != 2 || length > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    Ok(source(fixed[12] & 0xF, fixed[13], &addresses))
}

/// The source address of a header: only command PROXY (1) over TCP has one that means anything.
fn source(command: u8, family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(addresses.get(at..at + 2)?.try_into().ok()?));
    match (command, family) {
        (1, 0x11) => {
            let address: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(address).into(), port(8)?))
        }
        (1, 0x21) => {
            let address: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv6Addr::from(address).into(), port(32)?))
        }
        _ => None,
    }
}

/// The address that the nearest trusted proxy saw: the last one of `X-Forwarded-For` that is not itself a proxy of
/// ours. What stands before it was said by a stranger.
pub fn forwarded_for(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").into_iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<_> = values.flat_map(|value| value.split(',')).map(|hop| parse_hop(hop.trim())).collect();
    for hop in hops.into_iter().rev() {
        match hop {
            Some(address) if is_trusted(trusted, address) => {}
            // An entry that is no address ends what can be believed.
            hop => return hop,
        }
    }
    None
}

/// An address with or without a port, as proxies write it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|net| net.parse().expect("a network")).collect()
    }

    #[test]
    fn the_last_hop_that_is_not_ours_is_believed() {
        let trusted = nets(&["10.0.0.0/8", "::1/128"]);
        let from = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().expect("a header value"));
            }
            forwarded_for(&headers, &trusted).map(|address| address.to_string())
        };
        assert_eq!(from(&["203.0.113.9"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(from(&["198.51.100.1, 203.0.113.9, 10.1.2.3"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(from(&["198.51.100.1", "203.0.113.9:4711"]).as_deref(), Some("203.0.113.9"));
        assert_eq!(from(&["[2001:db8::7]"]).as_deref(), Some("2001:db8::7"));
        assert_eq!(from(&["198.51.100.1, nonsense, 10.0.0.1"]), None);
        assert_eq!(from(&["10.0.0.1"]), None);
        assert_eq!(from(&[]), None);
    }

    async fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        client.write_all(bytes).await.expect("written");
        client.shutdown().await.expect("shut down");
        let (mut server, _) = listener.accept().await.expect("accepted");
        let result = read_header(&mut server).await;
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        (result, rest)
    }

    #[tokio::test]
    async fn a_header_names_the_client_and_is_taken_off() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x07, 0x5B]);
        bytes.extend(b"rest");
        let (result, rest) = read(&bytes).await;
        assert_eq!(result.expect("a header"), Some("203.0.113.9:4711".parse().expect("an address")));
        assert_eq!(rest, b"rest");
    }

    #[tokio::test]
    async fn without_a_header_nothing_is_taken_off() {
        let (result, rest) = read(&[0x10, 0x0C, 0, 4]).await;
        assert_eq!(result.expect("no header"), None);
        assert_eq!(rest, [0x10, 0x0C, 0, 4]);
    }

    #[tokio::test]
    async fn a_health_check_of_the_proxy_names_nobody() {
        let bytes = [&SIGNATURE[..], &[0x20, 0x00, 0, 0]].concat();
        assert_eq!(read(&bytes).await.0.expect("a header"), None);
    }

    #[tokio::test]
    async fn what_only_looks_like_a_header_is_refused() {
        for bytes in [
            &b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"[..],
            &[&SIGNATURE[..], &[0x11, 0x11, 0, 12]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0xFF, 0xFF]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0, 12, 1, 2]].concat(),
        ] {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
        let short = [&SIGNATURE[..], &[0x21, 0x21, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(read(&short).await.0.expect("a header"), None, "too short for its family: names nobody");
    }
}
