//! `/api/nodes`: the servers that there are. This one, for one that is alone.

use axum::response::Response;
use serde::Serialize;

use super::json;
use crate::{room::Overview, server::Shared};

#[derive(Serialize)]
struct List<'a> {
    nodes: [Node<'a>; 1],
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    version: &'static str,
    /// Seconds.
    uptime: u64,
    connections: usize,
    rooms: usize,
    members: usize,
}

pub fn list(shared: &Shared) -> Response {
    let Overview { rooms, members, .. } = shared.hub.overview();
    json(&List {
        nodes: [Node {
            name: &shared.hub.node,
            version: env!("CARGO_PKG_VERSION"),
            uptime: shared.hub.started().elapsed().as_secs(),
            connections: shared.edge.connected(),
            rooms,
            members,
        }],
    })
}
