//! Why there is no connection.

use std::process::Command;

use drover_worker::store::{self, StoreAddress, StoreReason};

use crate::surroundings::{env, file, worker};

async fn refused(uri: &str, ca: Option<String>) -> StoreReason {
    let address = StoreAddress::from_uri(uri, ca).unwrap();
    let error = store::connect(&address, "drover-test").await.expect_err("it must be refused");
    assert!(!error.message.contains('\n'), "{}", error.message);
    assert!(!error.message.contains(&password()), "{}", error.message);
    error.reason
}

fn uri() -> url::Url {
    env("DROVER_TEST_STORE_WORKER_URI").parse().unwrap()
}

fn password() -> String {
    uri().password().unwrap().to_owned()
}

#[tokio::test]
async fn a_trusted_server_is_connected_to_over_tls() {
    let client = worker().await;
    let row = client.query_typed_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let reason = refused(uri().as_str(), Some(file("DROVER_TEST_OTHER_CA"))).await;
    assert_eq!(reason, StoreReason::CertificateUnknownAuthority);
    assert_eq!(refused(uri().as_str(), None).await, StoreReason::CertificateUnknownAuthority);
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_told_apart() {
    let ca = || Some(file("DROVER_TEST_CA"));
    let mut wrong = uri();
    wrong.set_password(Some("sesame")).unwrap();
    assert_eq!(refused(wrong.as_str(), ca()).await, StoreReason::AuthenticationFailed);
    let mut wrong = uri();
    wrong.set_port(Some(1)).unwrap();
    assert_eq!(refused(wrong.as_str(), ca()).await, StoreReason::Unreachable);
    let mut wrong = uri();
    wrong.set_host(Some("nowhere.invalid")).unwrap();
    assert_eq!(refused(wrong.as_str(), ca()).await, StoreReason::HostNotFound);
    let mut wrong = uri();
    wrong.set_query(Some("sslmode=disable"));
    assert_eq!(refused(wrong.as_str(), ca()).await, StoreReason::TlsRequired);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told() {
    let mut wrong = uri();
    wrong.set_path("/nothing");
    assert_eq!(refused(wrong.as_str(), Some(file("DROVER_TEST_CA"))).await, StoreReason::DatabaseNotFound);
}

/// The certificate that the store shows; other tests need the right one afterwards, whatever becomes of this one.
struct Shown;

impl Shown {
    fn new(which: &str) -> Self {
        let status = Command::new(env("DROVER_TEST_CTL"))
            .args([env("DROVER_TEST_SET").as_str(), "postgres", "cert", which])
            .status()
            .unwrap();
        assert!(status.success(), "cert {which}");
        Self
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = Command::new(env("DROVER_TEST_CTL"))
            .args([env("DROVER_TEST_SET").as_str(), "postgres", "cert", "server"])
            .status();
    }
}

#[tokio::test]
#[ignore = "slow: changes the certificate of the store that all tests share"]
async fn certificates_are_refused_for_three_reasons() {
    for (which, reason) in [
        ("expired", StoreReason::CertificateExpired),
        ("wrongname", StoreReason::CertificateWrongName),
        ("otherserver", StoreReason::CertificateUnknownAuthority),
    ] {
        let _shown = Shown::new(which);
        assert_eq!(refused(uri().as_str(), Some(file("DROVER_TEST_CA"))).await, reason, "{which}");
    }
}
