//! An AMQP URI, read as people write it.

use std::fmt;

use lapin::uri::AMQPUri;
use url::Url;

use super::{HubError, HubReason};
use crate::tls::Material;

/// Where the hub is, and with what to prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub struct HubAddress {
    /// `amqp[s]://user:password@host:port/vhost`.
    pub uri: String,
    /// Authorities, and a client certificate.
    pub tls: Material,
}

/// A hub: one address, vhost and user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubIdentity {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
    /// The user.
    pub user: String,
}

impl fmt::Display for HubIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("HubAddress");
        match self.identity() {
            Ok(identity) => debug.field("identity", &identity),
            Err(_) => debug.field("uri", &"(unreadable)"),
        };
        debug.field("tls", &self.tls).finish()
    }
}

impl HubAddress {
    /// Host, port, vhost and user.
    ///
    /// # Errors
    /// `InvalidUri`, without the URI in it.
    pub fn identity(&self) -> Result<HubIdentity, HubError> {
        let uri = self.amqp_uri(0)?;
        Ok(HubIdentity {
            tls: uri.scheme == lapin::uri::AMQPScheme::AMQPS,
            host: uri.authority.host,
            port: uri.authority.port,
            vhost: uri.vhost,
            user: uri.authority.userinfo.username,
        })
    }

    pub(super) fn amqp_uri(&self, heartbeat: u16) -> Result<AMQPUri, HubError> {
        let refuse = |why: &str| HubError {
            reason: HubReason::InvalidUri,
            message: format!("the hub's uri {why}: write it as amqps://user:password@host:port/vhost"),
            source: None,
        };
        let url = Url::parse(self.uri.trim()).map_err(|e| refuse(&format!("cannot be read ({e})")))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(refuse("begins with neither amqp:// nor amqps://"));
        }
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| refuse("names no host"))?;
        let mut uri: AMQPUri = self.uri.trim().parse().map_err(|_| refuse("cannot be read"))?;
        // The parser takes an IPv6 address for a missing host.
        if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            address.clone_into(&mut uri.authority.host);
        }
        // amqp://host/ is the vhost without a name by the letter; nobody who writes it means that one.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat = Some(heartbeat);
        Ok(uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uri: &str) -> Result<HubIdentity, HubError> {
        HubAddress { uri: uri.to_owned(), tls: Material::default() }.identity()
    }

    #[test]
    fn an_address_is_host_port_vhost_and_user() {
        let found = identity("amqps://me:s%40cret@hub.example:5700/%2fiot").unwrap();
        let wanted =
            HubIdentity { tls: true, host: "hub.example".into(), port: 5700, vhost: "/iot".into(), user: "me".into() };
        assert_eq!(found, wanted);
    }

    #[test]
    fn ports_and_vhosts_have_their_usual_defaults() {
        assert_eq!(identity("amqps://h").unwrap().port, 5671);
        let plain = identity("amqp://h/").unwrap();
        assert_eq!((plain.port, plain.vhost.as_str(), plain.user.as_str()), (5672, "/", "guest"));
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        let found = identity("amqp://u:p@[fd00::1]:5672/v").unwrap();
        assert_eq!(found.host, "fd00::1");
        assert_eq!(found.to_string(), "amqp://[fd00::1]:5672");
    }

    #[test]
    fn a_refused_uri_is_not_repeated() {
        for uri in ["", "hub", "https://u:sesame@h", "amqp://", "amqps://u:sesame@", "amqp://u:sesame@h:port/"] {
            let error = identity(uri).unwrap_err();
            assert_eq!(error.reason, HubReason::InvalidUri, "{uri}");
            assert!(!error.message.contains("sesame"), "{}", error.message);
        }
    }

    #[test]
    fn debug_shows_no_password() {
        for uri in ["amqps://u:sesame@h", "sesame"] {
            let address = HubAddress { uri: uri.to_owned(), tls: Material::default() };
            assert!(!format!("{address:?}").contains("sesame"));
        }
    }
}
