//! Which hosts hubs, stores and sinks may be on, and the addresses that pass. Pure: it asks no DNS, and connects to nothing.

use std::{fmt, net::IpAddr, str::FromStr};

use drover_crds::{api::SecretRef, resolved::web_host};
use drover_worker::{hub::HubAddress, store::StoreAddress};

use crate::{
    minted::{KEY, ManagementAddress},
    problem::Problem,
    secrets::{Data, hub_address, store_address},
};

/// Reason of `Accepted` where an object names another host.
pub(crate) const NOT_ALLOWED: &str = "HostNotAllowed";

/// Hosts that may be named; without a pattern, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// One name.
    Name(String),
    /// Every name that ends so, with the dot before it.
    Below(String),
    /// Addresses that begin with these bits.
    Network(IpAddr, u8),
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: write a name, *.name for all below it, an address, or a network such as 10.0.0.0/8; no port"
)]
pub struct InvalidPattern(String);

impl FromStr for AllowedHosts {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let patterns = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        Ok(Self(patterns.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern(text.to_owned());
        if let Some((network, bits)) = text.split_once('/') {
            let (network, bits) =
                (network.parse::<IpAddr>().map_err(|_| invalid())?, bits.parse().map_err(|_| invalid())?);
            let most = if network.is_ipv4() { 32 } else { 128 };
            return if bits <= most { Ok(Self::Network(network, bits)) } else { Err(invalid()) };
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let name = plain(name);
        match address(&name) {
            Some(found) if !below => Ok(Self::Network(found, if found.is_ipv4() { 32 } else { 128 })),
            None if is_name(&name) => Ok(if below { Self::Below(format!(".{name}")) } else { Self::Name(name) }),
            _ => Err(invalid()),
        }
    }
}

impl Pattern {
    fn matches(&self, host: &str) -> bool {
        match (self, address(host)) {
            (Self::Name(name), None) => name == host,
            (Self::Below(end), None) => host.len() > end.len() && host.ends_with(end.as_str()),
            (Self::Network(network, bits), Some(address)) => is_within(address, *network, *bits),
            _ => false,
        }
    }
}

impl fmt::Display for AllowedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |pattern: &Pattern| match pattern {
            Pattern::Name(name) => name.clone(),
            Pattern::Below(end) => format!("*{end}"),
            Pattern::Network(network, bits) => format!("{network}/{bits}"),
        };
        f.write_str(&self.0.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

impl AllowedHosts {
    /// Whether a host may be named, as a URI has it.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let host = plain(host);
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(&host))
    }

    /// The hub that a secret names.
    ///
    /// # Errors
    /// Why it cannot be used: `HostNotAllowed` among others.
    pub(crate) fn hub(&self, secret: &SecretRef, data: &Data) -> Result<HubAddress, Problem> {
        let address = hub_address(secret, data)?;
        let identity = address
            .identity()
            .map_err(|e| Problem::new(e.reason.as_str(), format!("secret {}: {}", secret.name, e.message)))?;
        self.check(&identity.host, || format!("key {} of secret {}, the hub's", secret.key("uri"), secret.name))?;
        Ok(address)
    }

    /// The management API that a hub's secret names.
    ///
    /// # Errors
    /// Why it cannot be used: `HostNotAllowed` among others.
    pub(crate) fn management(
        &self,
        secret: &SecretRef,
        data: &Data,
        hub: &HubAddress,
    ) -> Result<ManagementAddress, Problem> {
        let address = ManagementAddress::of(secret, data, hub)?;
        self.server(&format!("key {} of secret {}", secret.key(KEY), secret.name), address.url())?;
        Ok(address)
    }

    /// The database that a secret names.
    ///
    /// # Errors
    /// Why it cannot be used: `HostNotAllowed` among others.
    pub(crate) fn store(&self, secret: &SecretRef, data: &Data) -> Result<StoreAddress, Problem> {
        let address = store_address(secret, data)?;
        let key = if data.contains_key(secret.key("uri")) { "uri" } else { "host" };
        for host in address.hosts() {
            self.check(&host, || format!("key {} of secret {}, the store's", secret.key(key), secret.name))?;
        }
        Ok(address)
    }

    /// The server of a URL of the spec.
    ///
    /// # Errors
    /// `HostNotAllowed`.
    pub(crate) fn server(&self, field: &str, url: &str) -> Result<(), Problem> {
        self.check(web_host(url).unwrap_or_default(), || field.to_owned())
    }

    fn check(&self, host: &str, place: impl FnOnce() -> String) -> Result<(), Problem> {
        if self.allows(host) {
            return Ok(());
        }
        let message = format!(
            "{} names host {host}, which this installation does not allow: name another, or have it added to allowedHosts of Drover's chart",
            place()
        );
        Err(Problem::new(NOT_ALLOWED, message))
    }
}

/// True if an object is refused for the host that it names.
pub(crate) fn is_refused<T>(admitted: &Result<T, Problem>) -> bool {
    admitted.as_ref().is_err_and(|problem| problem.reason == NOT_ALLOWED)
}

/// The problem with the host, where that is the problem.
pub(crate) fn refusal<T>(found: &Result<T, Problem>) -> Option<Problem> {
    found.as_ref().err().filter(|problem| problem.reason == NOT_ALLOWED).cloned()
}

/// Without what does not tell hosts apart: case, the root's dot, an IPv6 address' brackets.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn address(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_name(name: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    name.len() <= 253 && name.split('.').all(label)
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros() >= u32::from(bits),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros() >= u32::from(bits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> AllowedHosts {
        text.parse().unwrap()
    }

    fn secret() -> SecretRef {
        serde_json::from_value(serde_json::json!({ "name": "s" })).unwrap()
    }

    fn data(key: &str, value: &str) -> Data {
        Data::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn without_a_pattern_every_host_is_allowed() {
        for text in ["", " ", ","] {
            assert!(allowed(text).allows("anything.example") && allowed(text).allows("10.1.2.3"), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_matched_whole_whatever_its_case_and_final_dot() {
        let hosts = allowed("Hub.example., db");
        assert!(hosts.allows("hub.EXAMPLE") && hosts.allows("hub.example.") && hosts.allows("DB"));
        for other in ["xhub.example", "hub.example.evil", "a.hub.example", "hub", "", ".", "hub.example:5671"] {
            assert!(!hosts.allows(other), "{other}");
        }
    }

    #[test]
    fn a_star_is_all_that_is_below_and_not_the_name_itself() {
        let hosts = allowed("*.internal.example");
        assert!(hosts.allows("a.internal.example") && hosts.allows("A.b.Internal.Example."));
        for other in ["internal.example", ".internal.example", "evilinternal.example", "a.internal.example.evil"] {
            assert!(!hosts.allows(other), "{other}");
        }
    }

    #[test]
    fn an_address_is_matched_as_a_number() {
        let hosts = allowed("10.0.0.0/8,192.0.2.7,[fd00::1],2001:db8::/32");
        for host in ["10.255.0.1", "::ffff:10.1.1.1", "192.0.2.7", "[fd00:0:0::1]", "FD00::1", "2001:db8:ffff::1"] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in ["11.0.0.1", "192.0.2.8", "fd00::2", "2001:db9::1", "10.evil.example", "0x0a000001", "10.1"] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert!(allowed("0.0.0.0/0").allows("8.8.8.8") && !allowed("0.0.0.0/0").allows("::1"));
        assert!(!allowed("*.example").allows("10.0.0.1"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for text in ["*", "a.*", "*.", "hub:5671", "amqps://hub", "10.0.0.0/33", "x/8", "a..b", "*.10.0.0.1", "a b"] {
            assert_eq!(text.parse::<AllowedHosts>(), Err(InvalidPattern(text.to_owned())), "{text}");
        }
        assert_eq!(allowed("A., *.B ,10.0.0.0/8").to_string(), "a,*.b,10.0.0.0/8");
    }

    #[test]
    fn the_host_of_a_hub_is_the_one_that_is_connected_to() {
        let hosts = allowed("good.example,fd00::1");
        let hub = |uri: &str| hosts.hub(&secret(), &data("uri", uri)).map(|_| ()).map_err(|p| p.reason);
        for uri in [
            "amqps://u:p@GOOD.example:5671/v",
            "amqp://evil@good.example",
            "amqp://[fd00::1]/",
            "amqp://u:p@good.example./v",
        ] {
            assert_eq!(hub(uri), Ok(()), "{uri}");
        }
        for uri in [
            "amqps://good.example@evil/",
            "amqps://good.example:p@evil:5671/good.example",
            "amqp://evil/v?host=good.example",
            "amqp://evil#@good.example/",
            "amqp://evil/@good.example",
            "amqp://good.example%40evil/",
            "amqp://good.example\\@evil/",
        ] {
            assert!(hub(uri).is_err_and(|r| r == NOT_ALLOWED || r == "InvalidUri"), "{uri}: {:?}", hub(uri));
        }
        assert_eq!(hub("amqps://good.example@evil/"), Err(NOT_ALLOWED.to_owned()));
    }

    #[test]
    fn every_host_of_a_store_must_be_allowed_and_the_address_it_is_reached_at() {
        let hosts = allowed("good.example,10.0.0.1");
        let store = |uri: &str| hosts.store(&secret(), &data("uri", uri)).map(|_| ()).map_err(|p| p.reason);
        assert_eq!(store("postgres://u:p@good.example:5432/d"), Ok(()));
        assert_eq!(store("host=good.example hostaddr=10.0.0.1 user=u"), Ok(()));
        for uri in [
            "postgres://u@good.example,evil/d",
            "postgres://good.example@evil/d",
            "postgres://u@good.example/d?host=evil",
            "host=good.example hostaddr=10.0.0.2 user=u",
            "host=/var/run/postgresql user=u",
        ] {
            assert_eq!(store(uri), Err(NOT_ALLOWED.to_owned()), "{uri}");
        }
    }

    #[test]
    fn a_refusal_says_which_host_where_and_how_to_allow_it_and_no_password() {
        let hosts = allowed("good.example");
        let problem = hosts.hub(&secret(), &data("uri", "amqps://u:sesame@evil.example/")).unwrap_err();
        for part in ["evil.example", "key uri of secret s", "allowedHosts"] {
            assert!(problem.message.contains(part), "{}", problem.message);
        }
        assert!(!problem.message.contains("sesame"));
        let mut parts = data("host", "evil.example");
        parts.extend([("username", "u"), ("password", "sesame"), ("database", "d")].map(|(k, v)| (k.into(), v.into())));
        let problem = hosts.store(&secret(), &parts).unwrap_err();
        assert!(problem.message.contains("key host of secret s"), "{}", problem.message);
        let problem = hosts.server("sink.http.url", "https://evil.example:8443/good.example").unwrap_err();
        assert!(problem.message.starts_with("sink.http.url names host evil.example,"), "{}", problem.message);
        assert_eq!(hosts.server("sink.http.url", "https://good.example?x"), Ok(()));
    }
}
