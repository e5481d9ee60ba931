//! HTTP server of llada.
#![forbid(unsafe_code)]
