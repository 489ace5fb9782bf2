//! URLs of HTTP, as far as a spec must be judged by them. Pure.

/// Whether a text is a URL of HTTP with a host.
#[must_use]
pub fn is_web(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty() && !host.starts_with(':') && !host.contains(['@', ' ']))
        && url.bytes().all(|b| b.is_ascii_graphic())
}

/// The host of a URL of HTTP, an IPv6 address without its brackets.
#[must_use]
pub fn web_host(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    match authority.strip_prefix('[') {
        Some(address) => address.split_once(']').map(|(address, _)| address),
        None => authority.split(':').next(),
    }
}

/// The port of a URL of HTTP.
#[must_use]
pub fn web_port(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // An IPv6 address has colons of its own, in brackets.
    let port = authority.rsplit(']').next()?.rsplit_once(':').map(|(_, port)| port);
    port.map_or(Some(if scheme == "https" { 443 } else { 80 }), |port| port.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_is_before_port_path_and_query() {
        for (url, host) in [
            ("https://sink.example", "sink.example"),
            ("http://sink:8000/other", "sink"),
            ("http://sink?other", "sink"),
            ("https://[fd00::1]:8443/", "fd00::1"),
        ] {
            assert_eq!(web_host(url), Some(host), "{url}");
        }
        assert_eq!(web_host("sink"), None);
    }

    #[test]
    fn a_url_of_http_has_a_host_and_a_port() {
        for (url, port) in [
            ("https://sink.example", 443),
            ("http://sink.example/in?a=b:1", 80),
            ("http://sink:8000/in", 8000),
            ("https://[::1]/", 443),
            ("https://[::1]:8443", 8443),
        ] {
            assert!(is_web(url), "{url}");
            assert_eq!(web_port(url), Some(port), "{url}");
        }
        for url in
            ["ftp://sink", "https://", "https:///in", "https://:80", "https://user:secret@sink", "https://a b", "sink"]
        {
            assert!(!is_web(url), "{url}");
        }
    }
}
