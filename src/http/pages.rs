//! The pages, which are part of the binary.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use rust_embed::Embed;

use crate::server::Shared;

#[derive(Embed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Pages;

/// Shown where the pages were not built before the binary was.
const NOT_BUILT: &str = include_str!("not_built.html");

/// What the page says of MQTT over TCP unless the server knows better.
const DEFAULT_PORT: &str = r#"<meta name="mqtt-port" content="1883" />"#;

/// A file of the page; `/` is `index.html`, which is told where MQTT over TCP is spoken.
pub async fn page(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match Pages::get(path) {
        Some(file) => {
            // Names below assets/ carry a hash of their content.
            let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
            let headers = [(header::CONTENT_TYPE, content_type(path)), (header::CACHE_CONTROL, cache)];
            if path == "index.html" {
                let port = shared.mqtt_port.map_or(String::new(), |port| port.to_string());
                let here = DEFAULT_PORT.replace("1883", &port);
                let text = String::from_utf8_lossy(&file.data).replace(DEFAULT_PORT, &here);
                return (headers, text).into_response();
            }
            (headers, file.data).into_response()
        }
        None if path == "index.html" => (StatusCode::OK, Html(NOT_BUILT)).into_response(),
        None => (StatusCode::NOT_FOUND, "no such page\n").into_response(),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
