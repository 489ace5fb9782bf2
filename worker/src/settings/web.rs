//! Who is spoken to over HTTP: a handler, and a server that is the sink.

use std::{fmt, time::Duration};

use crate::tls::Material;

/// A container beside the worker that transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handler {
    /// Its port on localhost.
    pub port: u16,
    /// Time for one message.
    pub timeout: Duration,
}

/// How a server that is the sink is spoken to.
#[derive(Clone, Default)]
pub struct Server {
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// Authorities, and a client's certificate with its key.
    pub tls: Material,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("token", &self.token.is_some()).field("tls", &self.tls).finish()
    }
}
