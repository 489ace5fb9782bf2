//! Where a PostgreSQL database is: a URI, or its parts.

use std::fmt;

use tokio_postgres::config::{Config, Host, SslMode};

use super::{StoreError, StoreReason};
use crate::tls::Material;

/// Port of PostgreSQL where none is given.
const PORT: u16 = 5432;

/// Where the store is, and with what to log in.
#[derive(Clone)]
pub struct StoreAddress {
    config: Config,
    tls: Material,
}

/// An address that is not given as a URI.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreParts {
    /// Name or address.
    pub host: String,
    /// TCP port; 5432 where there is none.
    pub port: Option<u16>,
    /// The role.
    pub username: String,
    /// Its password, where it needs one.
    pub password: Option<String>,
    /// The database; that of the role's name where there is none.
    pub database: Option<String>,
}

/// A store: one address, database and user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreIdentity {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
}

impl fmt::Display for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for StoreParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreParts").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAddress")
            .field("identity", &self.identity())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl StoreAddress {
    /// From `postgres://user:password@host:port/database?sslmode=require`, or libpq's `key=value` form.
    /// sslmode is `disable`, `prefer` or `require`; `require`, as `verify-ca` and `verify-full`, verifies by name.
    /// Where there is none it is `require` if a CA is given, else `prefer`.
    ///
    /// # Errors
    /// `InvalidUri`, without the URI in it.
    pub fn from_uri(uri: &str, ca: Option<String>) -> Result<Self, StoreError> {
        let refuse = |why: String| StoreError {
            reason: StoreReason::InvalidUri,
            message: format!(
                "the store's uri {why}: write it as postgres://user:password@host:port/database?sslmode=require"
            ),
            source: None,
        };
        let mode = uri.contains("sslmode=");
        let uri = uri
            .trim()
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = uri.parse().map_err(|e: tokio_postgres::Error| {
            // The cause names the key that is wrong, never a value.
            let cause = std::error::Error::source(&e).map_or_else(String::new, |c| format!(" ({c})"));
            refuse(format!("cannot be read{cause}"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(refuse("names no host".to_owned()));
        }
        if !mode && ca.is_some() {
            config.ssl_mode(SslMode::Require);
        }
        Ok(Self { config, tls: Material { ca, ..Material::default() } })
    }

    /// From host, user and so on. Encrypted if a CA is given; else where the server offers it.
    #[must_use]
    pub fn from_parts(parts: &StoreParts, ca: Option<String>) -> Self {
        let mut config = Config::new();
        config.host(&parts.host).port(parts.port.unwrap_or(PORT)).user(&parts.username);
        if let Some(password) = &parts.password {
            config.password(password);
        }
        if let Some(database) = &parts.database {
            config.dbname(database);
        }
        config.ssl_mode(if ca.is_some() { SslMode::Require } else { SslMode::Prefer });
        Self { config, tls: Material { ca, ..Material::default() } }
    }

    /// Host, port, database and user; of several hosts the first.
    #[must_use]
    pub fn identity(&self) -> StoreIdentity {
        let user = self.config.get_user().unwrap_or_default();
        StoreIdentity {
            host: match self.config.get_hosts().first() {
                Some(Host::Tcp(host)) => host.clone(),
                #[cfg(unix)]
                Some(Host::Unix(path)) => path.display().to_string(),
                None => String::new(),
            },
            port: self.config.get_ports().first().copied().unwrap_or(PORT),
            database: self.config.get_dbname().unwrap_or(user).to_owned(),
            user: user.to_owned(),
        }
    }

    /// Every host that a connection may be made to, and every address that is given beside its name.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let named = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(host) => host.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        });
        named.chain(self.config.get_hostaddrs().iter().map(ToString::to_string)).collect()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tls(&self) -> &Material {
        &self.tls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_and_its_parts_are_the_same_store() {
        let uri = StoreAddress::from_uri("postgres://me:sesame@db.example:5433/iot", None).unwrap();
        let parts = StoreParts {
            host: "db.example".into(),
            port: Some(5433),
            username: "me".into(),
            password: Some("sesame".into()),
            database: Some("iot".into()),
        };
        assert_eq!(uri.identity(), StoreAddress::from_parts(&parts, None).identity());
        assert_eq!(uri.identity().to_string(), "postgres://db.example:5433/iot");
    }

    #[test]
    fn all_hosts_are_told_and_addresses_beside_them() {
        let address = StoreAddress::from_uri("postgres://u@a,b:5433/d?hostaddr=10.0.0.1,10.0.0.2", None).unwrap();
        assert_eq!(address.hosts(), ["a", "b", "10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn every_kind_of_verification_is_the_full_one() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let address = StoreAddress::from_uri(&format!("postgres://u@h/d?sslmode={mode}"), None).unwrap();
            assert_eq!(address.config.get_ssl_mode(), SslMode::Require, "{mode}");
        }
    }

    #[test]
    fn a_ca_asks_for_encryption_unless_the_uri_says_otherwise() {
        let mode =
            |uri, ca: Option<&str>| StoreAddress::from_uri(uri, ca.map(str::to_owned)).unwrap().config.get_ssl_mode();
        assert_eq!(mode("postgres://u@h/d", Some("ca")), SslMode::Require);
        assert_eq!(mode("postgres://u@h/d", None), SslMode::Prefer);
        assert_eq!(mode("postgres://u@h/d?sslmode=disable", Some("ca")), SslMode::Disable);
    }

    #[test]
    fn a_refused_uri_is_not_repeated() {
        for uri in ["", "postgres://u:sesame@h:port/d", "postgres://u:sesame@h/d?sslmode=maybe", "u=sesame"] {
            let error = StoreAddress::from_uri(uri, None).unwrap_err();
            assert_eq!(error.reason, StoreReason::InvalidUri, "{uri}");
            assert!(!error.message.contains("sesame"), "{}", error.message);
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let address = StoreAddress::from_uri("postgres://u:sesame@h/d", None).unwrap();
        assert!(!format!("{address:?}").contains("sesame"));
    }
}
