//! What the environment says about the services and the images; `make test` sets it up.

use std::env;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use url::Url;

/// The services that tests share and the images that they run.
#[derive(Debug)]
pub struct Surroundings {
    /// The hub, as its administrator.
    pub hub: Url,
    /// The hub's management API, as its administrator.
    pub management: Url,
    /// The database server, as its administrator.
    pub store: Url,
    /// File of the authority that signed the certificates of hub and store.
    pub ca_file: String,
    /// That authority (PEM).
    pub ca: String,
    /// An authority that signed none of them (PEM).
    pub other_ca: String,
}

static SURROUNDINGS: OnceLock<std::result::Result<Surroundings, String>> = OnceLock::new();

/// Reads them once.
pub fn surroundings() -> Result<&'static Surroundings> {
    SURROUNDINGS
        .get_or_init(|| {
            // Fails only if it was done already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            read().map_err(|error| format!("{error:#}"))
        })
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

fn read() -> Result<Surroundings> {
    let ca_file = variable("DROVER_TEST_CA")?;
    Ok(Surroundings {
        hub: address("DROVER_TEST_HUB_URI")?,
        management: address("DROVER_TEST_HUB_MANAGEMENT_URI")?,
        store: address("DROVER_TEST_STORE_ADMIN_URI")?,
        ca: file(&ca_file)?,
        ca_file,
        other_ca: file(&variable("DROVER_TEST_OTHER_CA")?)?,
    })
}

/// A variable that must be set.
pub fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: make test-cluster sets it"))
}

/// An address that must be set.
pub fn address(name: &str) -> Result<Url> {
    // The address holds a password: it is not told.
    Url::parse(&variable(name)?).with_context(|| format!("{name} is no address"))
}

fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))
}
