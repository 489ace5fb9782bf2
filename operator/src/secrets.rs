//! Reads secrets by name, never by list, and makes addresses of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::{Duration, Instant},
};

use drover_crds::api::SecretRef;
use drover_worker::{
    hub::HubAddress,
    store::{StoreAddress, StoreParts},
    tls::Material,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::problem::Problem;

/// A secret is read again after this long. What is missing is read again each time.
const FRESH: Duration = Duration::from_secs(20);

/// What a secret holds, as text.
pub(crate) type Data = BTreeMap<String, String>;

/// Secrets that were read lately.
#[derive(Debug, Default)]
pub struct Secrets {
    read: Mutex<HashMap<(String, String), (Instant, Data)>>,
}

impl Secrets {
    /// What is in a secret.
    ///
    /// # Errors
    /// The problem, if there is no such secret, or the API server did not answer.
    pub(crate) async fn get(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
        now: Instant,
    ) -> Result<Data, Problem> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(data) = self.known(&key, now) {
            return Ok(data);
        }
        let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await.map_err(|e| {
            self.lock().remove(&key);
            Problem::new("SecretUnreadable", format!("secret {name} cannot be read: {e}. May the operator get it?"))
        })?;
        let Some(secret) = secret else {
            self.lock().remove(&key);
            return Err(Problem::new(
                "SecretNotFound",
                format!("secret {name} is missing in namespace {namespace}: make it"),
            ));
        };
        let data = text(secret);
        self.lock().insert(key, (now, data.clone()));
        Ok(data)
    }

    /// What was read lately. Whoever is first to find it old reads it anew; others go on with it until that is done.
    fn known(&self, key: &(String, String), now: Instant) -> Option<Data> {
        let mut read = self.lock();
        let (at, data) = read.get_mut(key)?;
        if now.duration_since(*at) >= FRESH {
            *at = now;
            return None;
        }
        Some(data.clone())
    }

    /// Reads it anew next time: what it holds was refused.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (Instant, Data)>> {
        self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is text in a secret, without a newline at its end.
pub(crate) fn text(secret: Secret) -> Data {
    let data = secret.data.unwrap_or_default().into_iter();
    data.filter_map(|(k, v)| Some((k, String::from_utf8(v.0).ok()?.trim_end_matches('\n').to_owned()))).collect()
}

/// The hub that a secret names.
pub(crate) fn hub_address(secret: &SecretRef, data: &Data) -> Result<HubAddress, Problem> {
    Ok(HubAddress { uri: required(secret, data, "uri")?, tls: material(secret, data) })
}

/// The database that a secret names: by `uri`, or by its parts.
pub(crate) fn store_address(secret: &SecretRef, data: &Data) -> Result<StoreAddress, Problem> {
    let get = |key| data.get(secret.key(key)).cloned();
    let invalid = |e: drover_worker::store::StoreError| {
        Problem::new(e.reason.as_str(), format!("secret {}: {}", secret.name, e.message))
    };
    if let Some(uri) = get("uri") {
        return StoreAddress::from_uri(&uri, material(secret, data).ca).map_err(invalid);
    }
    if get("host").is_none() {
        return Err(missing(secret, "uri"));
    }
    for key in ["username", "password", "database"] {
        required(secret, data, key)?;
    }
    let port = match get("port").as_deref().map(str::parse) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => {
            let message = format!("secret {}: the key {} is no port", secret.name, secret.key("port"));
            return Err(Problem::new("InvalidUri", message));
        }
    };
    let parts = StoreParts {
        host: get("host").unwrap_or_default(),
        port,
        username: get("username").unwrap_or_default(),
        password: get("password"),
        database: get("database"),
    };
    Ok(StoreAddress::from_parts(&parts, material(secret, data).ca))
}

/// What workers read of a hub's secret where they are users that the operator makes.
pub(crate) fn without_user(secret: &SecretRef, data: &Data) -> Data {
    let uri = secret.key("uri");
    data.iter().filter(|(key, _)| *key != uri).map(|(key, text)| (key.clone(), text.clone())).collect()
}

fn material(secret: &SecretRef, data: &Data) -> Material {
    let get = |key| data.get(secret.key(key)).cloned().filter(|v: &String| !v.is_empty());
    Material { ca: get("ca.crt"), cert: get("tls.crt"), key: get("tls.key") }
}

fn required(secret: &SecretRef, data: &Data, key: &str) -> Result<String, Problem> {
    data.get(secret.key(key)).filter(|v| !v.is_empty()).cloned().ok_or_else(|| missing(secret, key))
}

fn missing(secret: &SecretRef, key: &str) -> Problem {
    Problem::new("SecretKeyMissing", format!("secret {} has no key {}", secret.name, secret.key(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "time enters the test here")]
    fn one_of_all_who_find_a_secret_old_reads_it_anew() {
        let (secrets, start) = (Secrets::default(), Instant::now());
        let key = ("iot".to_owned(), "hub".to_owned());
        assert_eq!(secrets.known(&key, start), None);
        let data = Data::from([("uri".to_owned(), "amqp://".to_owned())]);
        secrets.lock().insert(key.clone(), (start, data.clone()));
        let asked = [0, 19, 20, 20, 21, 40, 40].map(|s| secrets.known(&key, start + Duration::from_secs(s)).is_some());
        assert_eq!(asked, [true, true, false, true, true, false, true]);
    }
}
