//! The hub's management API, as far as users, their rights and their connections go. Decides nothing, and tells no password.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use drover_crds::api::SecretRef;
use drover_worker::{
    hub::HubAddress,
    tls::{self, Material},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::grant::Grant;
use crate::{lease::Fence, problem::Problem, reconcile::chain, secrets::Data};

/// Key of the hub's secret with the API's address.
pub(crate) const KEY: &str = "managementUri";
/// One call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that nobody has used for so long are closed, before the hub does it.
const IDLE: Duration = Duration::from_secs(30);
/// Most of an answer, in bytes: a user's connections are the largest, where the hub knows no pages.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// A pattern that no routing key fits.
const NO_KEY: &str = "(?!)";
/// Most of an answer that is quoted, in bytes.
const MAX_QUOTE: usize = 256;
/// How a password is kept at the hub: its default in all versions.
const HASHING: &str = "rabbit_password_hashing_sha256";
/// Bytes before the hash, which it begins with.
const SALT: usize = 4;

/// Where the API is, and an administrator of the hub.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagementAddress {
    /// `http[s]://host:port` and a path, without a user.
    url: String,
    user: String,
    password: String,
    tls: Material,
}

impl fmt::Debug for ManagementAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, user, password: _, tls } = self;
        f.debug_struct("ManagementAddress").field("url", url).field("user", user).field("tls", tls).finish()
    }
}

impl ManagementAddress {
    /// Reads an address; the user is that of the hub's where the address has none.
    ///
    /// # Errors
    /// What is wrong with it, without the address.
    pub fn new(uri: &str, hub: &HubAddress) -> Result<Self, String> {
        let mut url = Url::parse(uri.trim()).map_err(|e| e.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err("it is not http:// or https:// with a host".to_owned());
        }
        let own = (!url.username().is_empty()).then(|| url.clone());
        let of = own.or_else(|| Url::parse(hub.uri.trim()).ok()).ok_or("the hub's uri cannot be read")?;
        let (user, password) = (decoded(of.username()), decoded(of.password().unwrap_or_default()));
        // Cannot fail: it has a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url: url.as_str().trim_end_matches('/').to_owned(), user, password, tls: hub.tls.clone() })
    }

    /// The one that a hub's secret names.
    pub(crate) fn of(secret: &SecretRef, data: &Data, hub: &HubAddress) -> Result<Self, Problem> {
        let key = secret.key(KEY);
        let Some(uri) = data.get(key).filter(|uri| !uri.is_empty()) else {
            let message = format!(
                "secret {} has no key {key}: hub.credentials: Minted needs the address of the hub's management API, http[s]://USER:PASSWORD@HOST:PORT, of an administrator",
                secret.name
            );
            return Err(Problem::new("SecretKeyMissing", message));
        };
        Self::new(uri, hub).map_err(|why| {
            let message = format!(
                "secret {}: the key {key} cannot be read ({why}): write it as https://USER:PASSWORD@HOST:PORT",
                secret.name
            );
            Problem::new("InvalidUri", message)
        })
    }

    /// Without the user.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Text without its percent signs.
fn decoded(text: &str) -> String {
    let query = format!("x={}", text.replace('+', "%2B"));
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.next().map_or_else(String::new, |(_, value)| value.into_owned())
}

/// One segment of a path.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A user as the hub tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// It may use the management API.
    pub tagged: bool,
    hash: Vec<u8>,
    hashing: String,
}

impl Told {
    /// Whether it has this password.
    pub(super) fn has(&self, password: &str) -> bool {
        self.hashing == HASHING && self.hash.len() > SALT && self.hash == hash(&self.hash[..SALT], password)
    }
}

/// A password as the hub keeps it.
fn hash(salt: &[u8], password: &str) -> Vec<u8> {
    let digest = Sha256::new().chain_update(salt).chain_update(password.as_bytes()).finalize();
    [salt, &digest[..]].concat()
}

/// Calls the API of one hub.
#[derive(Debug)]
pub struct Management {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: ManagementAddress,
    fence: Fence,
}

impl Management {
    /// For an address; nothing is connected to before the first call.
    ///
    /// # Errors
    /// If certificates or key in the secret cannot be used.
    pub fn new(address: ManagementAddress) -> Result<Self, Problem> {
        let config = tls::client_config(&address.tls)
            .map_err(|e| Problem::new("TlsFailed", format!("the hub's management API: {e}")))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(tls::connector(config, PATIENCE));
        Ok(Self { client, address, fence: Fence::default() })
    }

    /// Changes nothing unless a fence is open.
    pub(super) fn fenced(self, fence: Fence) -> Self {
        Self { fence, ..self }
    }

    /// A user; `None` where there is none.
    pub(super) async fn user(&self, name: &str) -> Result<Option<Told>, Problem> {
        let Some(found) = self.call(Method::GET, &format!("users/{}", segment(name)), None).await? else {
            return Ok(None);
        };
        // A list, or one text with commas, as versions have it.
        let tagged = match &found["tags"] {
            Value::Array(tags) => !tags.is_empty(),
            tags => tags.as_str() != Some(""),
        };
        let hash = serde_json::from_value::<ByteString>(found["password_hash"].clone()).unwrap_or_default().0;
        let hashing = found["hashing_algorithm"].as_str().unwrap_or_default().to_owned();
        Ok(Some(Told { tagged, hash, hashing }))
    }

    /// What a user may do in a virtual host; `None` where it may do something else besides, there or in another.
    pub(super) async fn grant(&self, name: &str, vhost: &str) -> Result<Option<Grant>, Problem> {
        let path = format!("users/{}", segment(name));
        let rights = self.call(Method::GET, &format!("{path}/permissions"), None).await?.unwrap_or_default();
        let topics = self.call(Method::GET, &format!("{path}/topic-permissions"), None).await?.unwrap_or_default();
        Ok(read(&rights, &topics, vhost))
    }

    /// Makes a user, or gives it this password; it has no rights at the management API.
    pub(super) async fn make(&self, name: &str, salt: [u8; SALT], password: &str) -> Result<(), Problem> {
        // The hub is sent what it would make of the password: no validator and no default of it is asked.
        let hash = ByteString(hash(&salt, password));
        let body = json!({ "password_hash": hash, "hashing_algorithm": HASHING, "tags": "" });
        self.call(Method::PUT, &format!("users/{}", segment(name)), Some(&body)).await.map(drop)
    }

    /// Gives a user these rights, and no others, there or in another virtual host. At no moment may it do more than before or after: what
    /// the routing keys are asked for goes last and comes first.
    pub(super) async fn permit(&self, name: &str, vhost: &str, grant: &Grant) -> Result<(), Problem> {
        let user = segment(name);
        let (path, here) = (format!("users/{user}"), segment(vhost));
        let rights = self.call(Method::GET, &format!("{path}/permissions"), None).await?.unwrap_or_default();
        let topics = self.call(Method::GET, &format!("{path}/topic-permissions"), None).await?.unwrap_or_default();
        for other in elsewhere(&[&rights, &topics], vhost) {
            let other = segment(&other);
            self.call(Method::DELETE, &format!("permissions/{other}/{user}"), None).await?;
            self.call(Method::DELETE, &format!("topic-permissions/{other}/{user}"), None).await?;
        }
        let mut wanted = grant.topics.clone();
        // An exchange that the hub keeps no keys of takes any: they are left there, with none that fits.
        let stale = topics.as_array().into_iter().flatten().filter(|p| p["vhost"] == vhost);
        for exchange in stale.filter_map(|p| p["exchange"].as_str()) {
            wanted.entry(exchange.to_owned()).or_insert_with(|| NO_KEY.to_owned());
        }
        for (exchange, write) in &wanted {
            let body = json!({ "exchange": exchange, "write": write, "read": "" });
            self.call(Method::PUT, &format!("topic-permissions/{here}/{user}"), Some(&body)).await?;
        }
        let body = json!({ "configure": "", "write": grant.write, "read": grant.read });
        self.call(Method::PUT, &format!("permissions/{here}/{user}"), Some(&body)).await.map(drop)
    }

    /// How many connections a user has. The hub counts them as they come and go, with statistics switched off too.
    pub(super) async fn connections(&self, name: &str) -> Result<Option<usize>, Problem> {
        let path = format!("connections/username/{}?page=1&page_size=1", segment(name));
        Ok(self.call(Method::GET, &path, None).await?.and_then(|found| count(&found)))
    }

    /// Takes a user away, with its connections; false where there was none.
    pub(super) async fn delete(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.call(Method::DELETE, &format!("users/{}", segment(name)), None).await?.is_some())
    }

    /// What the API answers; `None` where it says that something is not there.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<Value>, Problem> {
        if method != Method::GET && !self.fence.is_open() {
            return Err(self.unreachable("another replica leads"));
        }
        let uri = format!("{}/api/{path}", self.address.url);
        let body = body.map(Value::to_string).unwrap_or_default();
        let user = format!("{}:{}", self.address.user, self.address.password);
        let request = Request::builder()
            .method(method.clone())
            .uri(&uri)
            .header(AUTHORIZATION, format!("Basic {}", base64(user.into_bytes())))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| self.unreachable(&e.to_string()))?;
        let asked = async {
            let response = self.client.request(request).await.map_err(|e| self.lost(&e))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| self.unreachable(&e.to_string()))?.to_bytes();
            self.meaning(&method, status, &body)
        };
        let silent = |_| Err(self.unreachable(&format!("no answer within {} s", PATIENCE.as_secs())));
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(silent)
    }

    fn meaning(&self, method: &Method, status: u16, body: &[u8]) -> Result<Option<Value>, Problem> {
        let text = String::from_utf8_lossy(body);
        let quoted = text.get(..text.floor_char_boundary(MAX_QUOTE)).unwrap_or_default();
        let Self { address: ManagementAddress { url, user, .. }, .. } = self;
        match status {
            200..=299 => Ok(Some(serde_json::from_slice(body).unwrap_or_default())),
            404 if *method != Method::PUT && is_an_answer(body) => Ok(None),
            404 => {
                let message = format!(
                    "the hub's management API is not at {url}, which answers HTTP 404: correct managementUri in the secret"
                );
                Err(Problem::new("ManagementFailed", message))
            }
            401 | 403 => {
                let message = format!(
                    "the hub's management API at {url} refuses user {user} ({quoted}): correct its password in the secret, or give it the tag administrator"
                );
                Err(Problem::new("ManagementRefused", message))
            }
            status => {
                let message = format!("the hub's management API at {url} answers HTTP {status}: {quoted}");
                Err(Problem::new("ManagementFailed", message))
            }
        }
    }

    fn lost(&self, error: &hyper_util::client::legacy::Error) -> Problem {
        let refused = tls::refusal(error).map(|refusal| drover_worker::hub::HubReason::from(refusal).as_str());
        Problem { reason: refused.unwrap_or("ManagementUnreachable").to_owned(), ..self.unreachable(&chain(error)) }
    }

    fn unreachable(&self, why: &str) -> Problem {
        let message = format!("the hub's management API at {} is not reached: {why}", self.address.url);
        Problem::new("ManagementUnreachable", message)
    }
}

fn base64(bytes: Vec<u8>) -> String {
    match serde_json::to_value(ByteString(bytes)) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Whether it is the API that says that something is not there, and not whoever stands before it.
fn is_an_answer(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer["error"] == "Object Not Found")
}

/// How many there are of what was asked for one page of; a hub that knows no pages lists all.
fn count(found: &Value) -> Option<usize> {
    let total = found["filtered_count"].as_u64().or_else(|| found["total_count"].as_u64());
    total.and_then(|total| usize::try_from(total).ok()).or_else(|| found.as_array().map(Vec::len))
}

/// Virtual hosts other than this one in which a user may do something.
fn elsewhere(lists: &[&Value], vhost: &str) -> BTreeSet<String> {
    let all = lists.iter().flat_map(|list| list.as_array().into_iter().flatten());
    all.filter_map(|p| p["vhost"].as_str()).filter(|other| *other != vhost).map(str::to_owned).collect()
}

/// Rights as the API lists them.
fn read(rights: &Value, topics: &Value, vhost: &str) -> Option<Grant> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (rights, topics) = (list(rights), list(topics));
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    if rights.iter().chain(&topics).any(|p| p["vhost"] != vhost) {
        return None;
    }
    if rights.iter().any(|p| p["configure"] != "") || topics.iter().any(|p| p["read"] != "") {
        return None;
    }
    let own = rights.first()?;
    let topics = topics.iter().map(|p| (text(p, "exchange"), text(p, "write")));
    let topics: BTreeMap<_, _> = topics.filter(|(_, write)| write != NO_KEY).collect();
    Some(Grant { write: text(own, "write"), read: text(own, "read"), topics })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> HubAddress {
        HubAddress { uri: "amqps://me:s%2Fe%2Bsame@hub:5671/%2f".to_owned(), tls: Material::default() }
    }

    #[test]
    fn the_user_is_the_hubs_where_the_address_names_none() {
        let of = |uri| ManagementAddress::new(uri, &hub()).map(|a| (a.url, a.user, a.password));
        let told = |user: &str, password: &str| Ok(("https://m:15671".into(), user.into(), password.into()));
        assert_eq!(of("https://m:15671/"), told("me", "s/e+same"));
        assert_eq!(of("https://admin:a%2Fb+c@m:15671?x#y"), told("admin", "a/b+c"));
        assert_eq!(of("https://m/behind/").unwrap().0, "https://m/behind");
    }

    #[test]
    fn an_address_is_shown_without_its_password_and_refused_without_itself() {
        let shown = format!("{:?}", ManagementAddress::new("https://a:sesame@m", &hub()).unwrap());
        assert!(!shown.contains("sesame"), "{shown}");
        let secret: SecretRef = serde_json::from_value(json!({ "name": "hub" })).unwrap();
        for uri in ["ftp://a:sesame@m", "sesame", "https://a:sesame@", "https://a:sesame@m:x"] {
            let problem = ManagementAddress::of(&secret, &Data::from([(KEY.into(), uri.into())]), &hub()).unwrap_err();
            assert_eq!(problem.reason, "InvalidUri", "{uri}");
            assert!(!problem.message.contains("sesame"), "{}", problem.message);
        }
        let problem = ManagementAddress::of(&secret, &Data::new(), &hub()).unwrap_err();
        assert!(problem.reason == "SecretKeyMissing" && problem.message.contains("managementUri"), "{problem:?}");
    }

    #[test]
    fn a_password_is_known_by_its_hash() {
        // RabbitMQ's own example: the password test12 with the salt 908D C60A.
        let hash = serde_json::from_value::<ByteString>(json!("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"));
        let told = Told { tagged: false, hash: hash.unwrap().0, hashing: HASHING.to_owned() };
        assert!(told.has("test12") && !told.has("test13"));
        assert!(!Told { hashing: "rabbit_password_hashing_md5".to_owned(), ..told.clone() }.has("test12"));
        assert!(!Told { hash: Vec::new(), ..told }.has(""));
    }

    #[test]
    fn only_the_api_itself_says_that_something_is_not_there() {
        let management = Management::new(ManagementAddress::new("https://a:sesame@m/behind", &hub()).unwrap()).unwrap();
        let api = br#"{"error":"Object Not Found","reason":"Not Found"}"#;
        assert_eq!(management.meaning(&Method::GET, 404, api), Ok(None));
        assert_eq!(management.meaning(&Method::DELETE, 404, api), Ok(None));
        for (method, body) in [(Method::GET, &b"<html>404</html>"[..]), (Method::DELETE, b""), (Method::PUT, api)] {
            let problem = management.meaning(&method, 404, body).unwrap_err();
            assert!(problem.message.contains("https://m/behind"), "{problem:?}");
        }
    }

    #[tokio::test]
    async fn who_does_not_lead_changes_nothing() {
        let management = Management::new(ManagementAddress::new("https://a:sesame@m", &hub()).unwrap()).unwrap();
        let problem = management.fenced(Fence::shut()).delete("u").await.unwrap_err();
        assert!(problem.message.ends_with("another replica leads"), "{problem:?}");
    }

    #[test]
    fn connections_are_counted_with_and_without_pages() {
        assert_eq!(count(&json!({"total_count": 20_000, "filtered_count": 20_000, "items": [{}]})), Some(20_000));
        assert_eq!([count(&json!([{}, {}])), count(&json!([])), count(&json!("x"))], [Some(2), Some(0), None]);
    }

    #[test]
    fn rights_beside_those_wanted_are_seen() {
        let right = |vhost: &str, configure: &str| json!([{ "vhost": vhost, "configure": configure, "write": "w", "read": "r" }]);
        let topic = |vhost: &str, read: &str| json!([{ "vhost": vhost, "exchange": "x", "write": "t", "read": read }]);
        let grant = Grant { write: "w".into(), read: "r".into(), topics: [("x".into(), "t".into())].into() };
        assert_eq!(read(&right("/", ""), &topic("/", ""), "/"), Some(grant.clone()));
        let mut more = topic("/", "");
        more.as_array_mut().unwrap().push(json!({"vhost": "/", "exchange": "old", "write": NO_KEY, "read": ""}));
        assert_eq!(read(&right("/", ""), &more, "/"), Some(grant), "one that no key fits is none");
        for (rights, topics) in [
            (right("/", ".*"), topic("/", "")),
            (right("other", ""), topic("/", "")),
            (right("/", ""), topic("other", "")),
            (right("/", ""), topic("/", ".*")),
            (json!([]), json!([])),
        ] {
            assert_eq!(read(&rights, &topics, "/"), None, "{rights} {topics}");
        }
    }
}
