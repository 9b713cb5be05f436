//! Bodies: JSON, bounded in size and time.

use std::error::Error;

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Number, error::Category, value::RawValue};

use super::Problem;
use crate::server::Shared;

/// Reads a body that may be left out.
///
/// # Errors
/// 408, 413, 415; 400 for what is no JSON, and 422 for JSON that is something else.
pub async fn read<T: DeserializeOwned + Default>(shared: &Shared, request: Request) -> Result<T, Problem> {
    let limit = shared.config.limits.packet;
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {limit} bytes"));
    let (head, body) = request.into_parts();
    let announced = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    // A body that was announced without a length must be waited for, and no longer than a CONNECT.
    let body = tokio::time::timeout(shared.config.limits.connect_timeout, to_bytes(body, limit)).await;
    let body = body.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long"))?;
    let body = body.map_err(|error| match is_limit(&error) {
        true => too_large(),
        false => Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"),
    })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    if !is_json(&head.headers) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body is Content-Type: application/json"));
    }
    serde_json::from_slice(&body).map_err(|error| match error.classify() {
        Category::Data => Problem::unprocessable(error.to_string()),
        _ => Problem::new(StatusCode::BAD_REQUEST, format!("no JSON: {error}")),
    })
}

/// A number of JSON that is whole: to JSON Schema, 60.0 is as good an integer as 60.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let rounded = || number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..EXACT).contains(value));
    match number.as_u64().or_else(|| rounded().map(|value| value as u64)) {
        Some(whole) => Ok(Some(whole)),
        None => Err(D::Error::custom(format_args!("{number} is no whole number from 0"))),
    }
}

/// A JSON object, which is not looked into.
pub fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    if value.get().starts_with('{') { Ok(Some(value)) } else { Err(D::Error::custom("a payload is an object")) }
}

fn is_limit(error: &axum::Error) -> bool {
    error.source().is_some_and(|source| source.to_string().contains("length limit"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
