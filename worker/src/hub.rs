//! The hub: where it is, a connection to it, and why there is none.
//!
//! Declares nothing and knows nothing of queues. What it says never contains the password.

mod address;

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError},
    tcp::RustlsConnector,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;

use crate::tls::{self, Refusal};
pub use address::{HubAddress, HubIdentity};

/// Time to connect in: name, TCP, TLS, and then once more for the AMQP handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Numbers that are tried for a channel.
const NUMBERS: usize = 16;
/// A hub that says nothing for twice this long is gone, in seconds.
pub const HEARTBEAT_SECONDS: u16 = 10;

/// Why there is no connection, as a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HubReason {
    /// The URI cannot be read.
    InvalidUri,
    /// The name is not known.
    HostNotFound,
    /// Nothing answers at that address and port.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Wrong user or password.
    AccessRefused,
    /// The vhost is missing, or the user may not use it.
    VirtualHostRefused,
    /// The certificate is signed by nobody who is trusted.
    CertificateUnknownAuthority,
    /// The certificate is for another name.
    CertificateWrongName,
    /// The certificate's time is over.
    CertificateExpired,
    /// The TLS handshake failed for another reason.
    TlsFailed,
    /// There was a connection, or almost, and it ended.
    ConnectionLost,
}

impl HubReason {
    /// The reason in `CamelCase`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUri => "InvalidUri",
            Self::HostNotFound => "HostNotFound",
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
            Self::AccessRefused => "AccessRefused",
            Self::VirtualHostRefused => "VirtualHostRefused",
            Self::CertificateUnknownAuthority => "CertificateUnknownAuthority",
            Self::CertificateWrongName => "CertificateWrongName",
            Self::CertificateExpired => "CertificateExpired",
            Self::TlsFailed => "TlsFailed",
            Self::ConnectionLost => "ConnectionLost",
        }
    }
}

impl From<Refusal> for HubReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownAuthority => Self::CertificateUnknownAuthority,
            Refusal::WrongName => Self::CertificateWrongName,
            Refusal::Expired => Self::CertificateExpired,
            Refusal::Other => Self::TlsFailed,
        }
    }
}

/// There is no connection to the hub.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HubError {
    /// The condition's reason.
    pub reason: HubReason,
    /// One line: what is the matter, and what to do. Without the password.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl HubError {
    fn new(reason: HubReason, message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, message, source: Some(source.into()) }
    }
}

/// Connects to the hub. The connection is not repaired once it is lost.
///
/// # Errors
/// With a reason and a message that says what to do.
pub async fn connect(address: &HubAddress, connection_name: &str) -> Result<Connection, HubError> {
    let identity = address.identity()?;
    let uri = address.amqp_uri(HEARTBEAT_SECONDS)?;
    let addresses = resolve(&identity).await?;
    let connector = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => {
            let config = tls::client_config(&address.tls)
                .map_err(|e| HubError::new(HubReason::TlsFailed, format!("{identity}: {e}"), e))?;
            Some(RustlsConnector::from(config))
        }
    };
    let runtime = lapin::runtime::default_runtime().map_err(|e| describe(&identity, e))?;
    let properties = ConnectionProperties::default().with_connection_name(connection_name.into());
    let host = Arc::new(identity.host.clone());
    let opened = Connection::connector(
        uri,
        runtime,
        async move |_: AMQPUri, runtime| {
            let stream = async {
                let stream = AsyncTcpStream::connect(&runtime, addresses.clone()).await?;
                match &connector {
                    Some(connector) => stream.into_rustls(connector, &host).await,
                    None => Ok(stream),
                }
            };
            let stream = timeout(CONNECT_TIMEOUT, stream).await.unwrap_or_else(|_| Err(timed_out()));
            Ok(stream?)
        },
        properties,
    );
    match timeout(CONNECT_TIMEOUT * 2, opened).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(describe(&identity, error)),
        Err(_) => Err(describe(&identity, timed_out().into())),
    }
}

/// A channel of a connection.
///
/// The client keeps the error with which the hub closed a channel, and gives it to whoever comes to have that channel's number next. So
/// another number is tried, and a connection that has no good one left is closed: whoever finds it closed makes another.
///
/// # Errors
/// If the connection is lost or has no channel left.
pub async fn channel(connection: &Connection) -> lapin::Result<Channel> {
    for _ in 0..NUMBERS {
        match connection.create_channel().await {
            Err(error) if !connection.status().connected() => return Err(error),
            Err(error) if matches!(error.kind(), ErrorKind::ProtocolError(_)) => {}
            // One that the hub closed, or that could not be opened, may never be given back.
            Err(error) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => break,
            opened => return opened,
        }
    }
    // It may be gone already.
    let _ = timeout(CONNECT_TIMEOUT, connection.close(200, "no channel left".into())).await;
    Err(ErrorKind::ChannelsLimitReached.into())
}

fn timed_out() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

async fn resolve(identity: &HubIdentity) -> Result<Vec<SocketAddr>, HubError> {
    let missing = |source: io::Error| {
        let message = format!("{identity}: the name {} is not known: correct the host in the uri", identity.host);
        HubError::new(HubReason::HostNotFound, message, source)
    };
    match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((identity.host.as_str(), identity.port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(missing(error)),
        Err(_) => Err(missing(timed_out())),
    }
}

/// Says what an error of the client means for the connection.
#[must_use]
pub fn describe(identity: &HubIdentity, error: lapin::Error) -> HubError {
    let reason = reason_of(&error);
    let what = match reason {
        HubReason::AccessRefused => format!("user {} or its password is refused: correct the secret", identity.user),
        HubReason::VirtualHostRefused => format!(
            "vhost {} is missing, or user {} may not use it: create it, or grant the permission",
            identity.vhost, identity.user
        ),
        HubReason::Unreachable => {
            "nothing answers at this port: check host, port and whether the hub runs, and that a NetworkPolicy lets it through"
                .to_owned()
        }
        HubReason::Timeout => format!("no answer within {} s: check that the hub runs", CONNECT_TIMEOUT.as_secs()),
        HubReason::CertificateUnknownAuthority => {
            "the certificate is signed by an authority that is not trusted: put the right ca.crt into the secret".to_owned()
        }
        HubReason::CertificateWrongName => format!(
            "the certificate is not for the name {}: use a name that it has, or let it be issued for this one",
            identity.host
        ),
        HubReason::CertificateExpired => "the certificate has expired or is not valid yet: renew it on the hub".to_owned(),
        HubReason::TlsFailed => format!("the TLS handshake failed ({error}): check that the port speaks TLS"),
        HubReason::InvalidUri | HubReason::HostNotFound | HubReason::ConnectionLost => {
            format!("the connection was lost ({error})")
        }
    };
    HubError::new(reason, format!("{identity}: {what}"), error)
}

fn reason_of(error: &lapin::Error) -> HubReason {
    if let Some(refusal) = tls::refusal(error) {
        return refusal.into();
    }
    match error.kind() {
        ErrorKind::IOError(io) => match io.kind() {
            io::ErrorKind::TimedOut => HubReason::Timeout,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => HubReason::Unreachable,
            // What a port that speaks no TLS makes of a handshake.
            io::ErrorKind::InvalidData => HubReason::TlsFailed,
            _ => HubReason::ConnectionLost,
        },
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
                HubReason::VirtualHostRefused
            }
            AMQPErrorKind::Soft(lapin::protocol::AMQPSoftError::ACCESSREFUSED) => HubReason::AccessRefused,
            _ => HubReason::ConnectionLost,
        },
        ErrorKind::AuthProviderError(_) => HubReason::AccessRefused,
        _ => HubReason::ConnectionLost,
    }
}
