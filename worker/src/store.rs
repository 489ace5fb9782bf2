//! PostgreSQL: where it is, a connection to it, why there is none, and whose fault a refused statement is.
//!
//! Knows nothing of messages. What it says never contains the password.

mod address;
mod fault;
mod pooler;
pub mod table;
pub(crate) mod typed;

use std::{error::Error, io, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{Client, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::{self, Refusal};
pub use address::{StoreAddress, StoreIdentity, StoreParts};
pub use fault::Fault;

/// Time to connect in, for everything up to the first statement.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the store cannot be used, as a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreReason {
    /// The address cannot be read.
    InvalidUri,
    /// The name is not known.
    HostNotFound,
    /// Nothing answers at that address and port.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// It starts, stops or recovers.
    NotReady,
    /// Wrong user or password, or the user may not log in.
    AuthenticationFailed,
    /// The database does not exist.
    DatabaseNotFound,
    /// Its connections are all taken.
    TooManyConnections,
    /// The certificate is signed by nobody who is trusted.
    CertificateUnknownAuthority,
    /// The certificate is for another name.
    CertificateWrongName,
    /// The certificate's time is over.
    CertificateExpired,
    /// The TLS handshake failed for another reason.
    TlsFailed,
    /// It takes encrypted connections only.
    TlsRequired,
    /// There was a connection and it ended.
    ConnectionLost,
    /// Disk or memory is full.
    InsufficientResources,
    /// It takes no writes.
    ReadOnly,
    /// A right is missing.
    PrivilegeMissing,
    /// The table is gone.
    TableNotFound,
    /// A column is gone.
    ColumnNotFound,
    /// A statement was refused for another reason.
    Refused,
}

impl StoreReason {
    /// The reason in `CamelCase`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUri => "InvalidUri",
            Self::HostNotFound => "HostNotFound",
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
            Self::NotReady => "NotReady",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::DatabaseNotFound => "DatabaseNotFound",
            Self::TooManyConnections => "TooManyConnections",
            Self::CertificateUnknownAuthority => "CertificateUnknownAuthority",
            Self::CertificateWrongName => "CertificateWrongName",
            Self::CertificateExpired => "CertificateExpired",
            Self::TlsFailed => "TlsFailed",
            Self::TlsRequired => "TlsRequired",
            Self::ConnectionLost => "ConnectionLost",
            Self::InsufficientResources => "InsufficientResources",
            Self::ReadOnly => "ReadOnly",
            Self::PrivilegeMissing => "PrivilegeMissing",
            Self::TableNotFound => "TableNotFound",
            Self::ColumnNotFound => "ColumnNotFound",
            Self::Refused => "Refused",
        }
    }

    /// The reason behind an error of the client.
    #[must_use]
    pub fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return of_state(db.code(), db.message());
        }
        if let Some(refusal) = tls::refusal(error) {
            return refusal.into();
        }
        match io_of(error) {
            Some(io) => of_io(io),
            None if error.to_string().contains("TLS") => Self::TlsFailed,
            None if error.to_string().starts_with("authentication") => Self::AuthenticationFailed,
            None => Self::ConnectionLost,
        }
    }
}

fn of_state(code: &SqlState, message: &str) -> StoreReason {
    if let Some(reason) = pooler::reason(message).filter(|_| code.code() == pooler::STATE) {
        return reason;
    }
    match code.code() {
        "28000" if message.contains("no encryption") || message.contains("SSL off") => StoreReason::TlsRequired,
        "3D000" => StoreReason::DatabaseNotFound,
        "53300" => StoreReason::TooManyConnections,
        "25006" => StoreReason::ReadOnly,
        "42501" => StoreReason::PrivilegeMissing,
        "42P01" | "3F000" => StoreReason::TableNotFound,
        "42703" => StoreReason::ColumnNotFound,
        "57014" => StoreReason::Timeout,
        code => match &code[..2] {
            "28" => StoreReason::AuthenticationFailed,
            "08" => StoreReason::ConnectionLost,
            "53" | "58" => StoreReason::InsufficientResources,
            "57" => StoreReason::NotReady,
            _ => StoreReason::Refused,
        },
    }
}

fn io_of(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = cause.source();
    }
    None
}

fn of_io(error: &io::Error) -> StoreReason {
    match error.kind() {
        io::ErrorKind::TimedOut => StoreReason::Timeout,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => StoreReason::Unreachable,
        // The standard library has no kind for it.
        _ if error.to_string().starts_with("failed to lookup address") => StoreReason::HostNotFound,
        _ => StoreReason::ConnectionLost,
    }
}

impl From<Refusal> for StoreReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownAuthority => Self::CertificateUnknownAuthority,
            Refusal::WrongName => Self::CertificateWrongName,
            Refusal::Expired => Self::CertificateExpired,
            Refusal::Other => Self::TlsFailed,
        }
    }
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The condition's reason.
    pub reason: StoreReason,
    /// One line: what is the matter, and what to do. Without the password.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Connects to the store. The connection ends with the client; it is not repaired once it is lost.
///
/// # Errors
/// With a reason and a message that says what to do.
pub async fn connect(address: &StoreAddress, application_name: &str) -> Result<Client, StoreError> {
    let identity = address.identity();
    let config = tls::client_config(address.tls()).map_err(|e| StoreError {
        reason: StoreReason::TlsFailed,
        message: format!("{identity}: {e}"),
        source: Some(e.into()),
    })?;
    let mut postgres = address.config().clone();
    postgres.application_name(application_name);
    let connecting = postgres.connect(MakeRustlsConnect::new((*config).clone()));
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((client, connection))) => {
            // Its error is also that of each statement that waits for an answer.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = &error as &dyn Error, "the connection to the store ended");
                }
            });
            Ok(client)
        }
        Ok(Err(error)) => Err(describe(&identity, error)),
        Err(_) => Err(StoreError {
            reason: StoreReason::Timeout,
            message: format!("{identity}: no answer within {} s: check that it runs", CONNECT_TIMEOUT.as_secs()),
            source: None,
        }),
    }
}

/// Says what an error of the client means.
#[must_use]
pub fn describe(identity: &StoreIdentity, error: tokio_postgres::Error) -> StoreError {
    let reason = StoreReason::of(&error);
    let detail = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    let user = &identity.user;
    let what = match reason {
        StoreReason::InvalidUri => "the address cannot be read".to_owned(),
        StoreReason::HostNotFound => format!("the name {} is not known: correct the host", identity.host),
        StoreReason::Unreachable => {
            "nothing answers at this port: check host, port and whether PostgreSQL runs, and that a NetworkPolicy lets it through"
                .to_owned()
        }
        StoreReason::Timeout => "no answer in time: check that PostgreSQL runs and is not overloaded".to_owned(),
        StoreReason::NotReady => format!("it does not take statements now ({detail})"),
        StoreReason::AuthenticationFailed => {
            format!("user {user} or its password is refused ({detail}): correct the secret")
        }
        StoreReason::DatabaseNotFound => format!("database {} does not exist: correct the secret", identity.database),
        StoreReason::TooManyConnections => format!("{detail}: raise max_connections or lower replicas or concurrency"),
        StoreReason::CertificateUnknownAuthority => {
            "the certificate is signed by an authority that is not trusted: put the right ca.crt into the secret".to_owned()
        }
        StoreReason::CertificateWrongName => format!(
            "the certificate is not for the name {}: use a name that it has, or let it be issued for this one",
            identity.host
        ),
        StoreReason::CertificateExpired => "the certificate has expired or is not valid yet: renew it".to_owned(),
        StoreReason::TlsFailed => {
            let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{detail}{cause}: check that the server speaks TLS, or set sslmode=disable")
        }
        StoreReason::TlsRequired => "it takes encrypted connections only: set sslmode=require".to_owned(),
        StoreReason::ConnectionLost => format!("the connection was lost ({detail})"),
        StoreReason::InsufficientResources => format!("{detail}: free disk or memory on the server"),
        StoreReason::ReadOnly => format!("{detail}: it is read-only for user {user}; name the primary, or lift the limit"),
        StoreReason::PrivilegeMissing => format!("{detail}: grant it to {user}"),
        StoreReason::TableNotFound => format!("{detail}: create it"),
        StoreReason::ColumnNotFound => format!("{detail}: add it, or correct the spec"),
        StoreReason::Refused => format!("{detail} (SQLSTATE {})", error.code().map_or("none", SqlState::code)),
    };
    StoreError { reason, message: format!("{identity}: {what}"), source: Some(error.into()) }
}
