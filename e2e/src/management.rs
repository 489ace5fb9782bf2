//! The hub's management API: virtual hosts, users, and what the hub says of itself.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use url::Url;

use crate::shell::attempt;
use crate::surroundings::surroundings;

/// One path segment of an address.
#[must_use]
pub fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Calls the API; `Null` where there is no answer to read. What is not there is an error.
pub async fn call(method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let surroundings = surroundings()?;
    let mut address = surroundings.management.clone();
    let (user, password) = credentials(&address);
    // Cannot fail: the address has a host.
    let _ = address.set_username("");
    let _ = address.set_password(None);
    // From standard input: what is secret is in no command line.
    let mut settings = format!(
        "silent\nshow-error\nmax-time = 30\nrequest = \"{method}\"\nurl = \"{}/api/{path}\"\nuser = \"{user}:{password}\"\n\
         header = \"content-type: application/json\"\nwrite-out = \"\\n%{{http_code}}\"\n",
        address.as_str().trim_end_matches('/'),
    );
    if address.scheme() == "https" {
        let _ = writeln!(settings, "cacert = \"{}\"", surroundings.ca_file);
    }
    if let Some(body) = body {
        let text = body.to_string().replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(settings, "data = \"{text}\"");
    }
    let ended = attempt("curl", &["--config", "-"], &settings).await?;
    if !ended.success {
        bail!("{method} {path}: {}", ended.err.trim());
    }
    let (answer, code) = ended.out.rsplit_once('\n').context("curl told no status")?;
    if !code.starts_with('2') {
        bail!("{method} {path}: {code} {answer}");
    }
    if answer.is_empty() { Ok(Value::Null) } else { serde_json::from_str(answer).context("not JSON") }
}

fn credentials(address: &Url) -> (String, String) {
    (decoded(address.username()), decoded(address.password().unwrap_or_default()))
}

/// Text without its percent signs.
fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_no_slash() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn credentials_are_decoded() {
        let address = Url::parse("https://drover:a%2Fb+c@hub:1").unwrap();
        assert_eq!(credentials(&address), ("drover".to_owned(), "a/b+c".to_owned()));
    }
}
