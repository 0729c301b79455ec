//! The API over the Unix socket: HTTP/1.1 and JSON, described by `openapi.json`. The server runs in the supervisor; the
//! client is for short-lived commands and starts no runtime.

mod client;
mod protocol;
mod server;

pub use client::{Change, Client, ClientError, Events};
pub use protocol::{ApplyRequest, DownRequest, KillRequest, Problem, StartRequest, StopRequest, Upgraded, WaitFor};
pub use server::{OPENAPI, serve};
