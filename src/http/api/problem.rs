//! What went wrong, as a problem document (RFC 9457).

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::hub::Declined;

/// See the module. The type is always `about:blank`: there is no more to say than the status and a sentence.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    pub fn not_found(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// The request can be read, and asks for what cannot be.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 401, with the challenge that belongs to it (RFC 6750 3).
    pub fn unauthorized(detail: &'static str, shown: bool) -> Self {
        let challenge =
            if shown { "Bearer realm=\"wigwag\", error=\"invalid_token\"" } else { "Bearer realm=\"wigwag\"" };
        let header = (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Self { header: Some(header), ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    pub fn method(allowed: &'static str) -> Self {
        let header = (header::ALLOW, HeaderValue::from_static(allowed));
        Self { header: Some(header), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "not by this method") }
    }

    pub fn too_many(detail: &'static str, wait: Duration) -> Self {
        let header = (header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        Self { header: Some(header), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }
}

impl From<Declined> for Problem {
    fn from(Declined { status, what }: Declined) -> Self {
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), what)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let document = Document { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        // Texts and a number: nothing that JSON cannot say.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
