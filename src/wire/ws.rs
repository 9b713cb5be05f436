//! WebSocket frames (RFC 6455), server side.
