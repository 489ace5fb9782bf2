//! Why there is no connection.

use drover_worker::{
    hub::{self, HubAddress, HubReason},
    tls::Material,
};

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use crate::surroundings::{env, file, hub};

async fn refused(address: &HubAddress) -> HubReason {
    let error = hub::connect(address, "test").await.expect_err("it must be refused");
    assert!(!error.message.contains('\n'), "{}", error.message);
    let password: url::Url = env("DROVER_TEST_HUB_URI").parse().unwrap();
    assert!(!error.message.contains(password.password().unwrap()), "{}", error.message);
    error.reason
}

fn uri() -> url::Url {
    env("DROVER_TEST_HUB_URI").parse().unwrap()
}

#[tokio::test]
async fn a_trusted_hub_is_connected_to() {
    let connection = hub::connect(&hub(uri().as_str()), "test").await.unwrap();
    assert_eq!(connection.configuration().heartbeat(), hub::HEARTBEAT_SECONDS);
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn a_channel_that_the_hub_closed_is_not_mistaken_for_another_and_without_a_good_one_the_connection_ends() {
    let connection = hub::connect(&hub(uri().as_str()), "test").await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let mut refused = 0;
    let error = loop {
        let channel = match hub::channel(&connection).await {
            Ok(channel) => channel,
            Err(error) => break error,
        };
        channel.queue_declare("connect-never".into(), passive, FieldTable::default()).await.unwrap_err();
        refused += 1;
    };
    // About as many as a connection has numbers for: some may not have been given back.
    let most = connection.configuration().channel_max();
    assert!((most - 100..=most).contains(&refused), "{refused} of {most}");
    assert!(!connection.status().connected());
    assert!(matches!(error.kind(), lapin::ErrorKind::ChannelsLimitReached), "{error}");
}

#[tokio::test]
async fn certificates_are_refused_for_three_reasons() {
    let other = Material { ca: Some(file("DROVER_TEST_OTHER_CA")), ..Material::default() };
    let address = HubAddress { uri: uri().to_string(), tls: other };
    assert_eq!(refused(&address).await, HubReason::CertificateUnknownAuthority);
    let system = HubAddress { uri: uri().to_string(), tls: Material::default() };
    assert_eq!(refused(&system).await, HubReason::CertificateUnknownAuthority);
    assert_eq!(refused(&hub(&env("DROVER_TEST_HUB_EXPIRED_URI"))).await, HubReason::CertificateExpired);
    assert_eq!(refused(&hub(&env("DROVER_TEST_HUB_WRONGNAME_URI"))).await, HubReason::CertificateWrongName);
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_told_apart() {
    let mut wrong = uri();
    wrong.set_password(Some("sesame")).unwrap();
    assert_eq!(refused(&hub(wrong.as_str())).await, HubReason::AccessRefused);
    let mut wrong = uri();
    wrong.set_path("/nothing");
    assert_eq!(refused(&hub(wrong.as_str())).await, HubReason::VirtualHostRefused);
    let mut wrong = uri();
    wrong.set_port(Some(1)).unwrap();
    assert_eq!(refused(&hub(wrong.as_str())).await, HubReason::Unreachable);
    let mut wrong = uri();
    wrong.set_host(Some("nowhere.invalid")).unwrap();
    assert_eq!(refused(&hub(wrong.as_str())).await, HubReason::HostNotFound);
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_told_from_a_lost_connection() {
    let mqtt: url::Url = env("DROVER_TEST_MQTT_URI").parse().unwrap();
    let mut wrong = uri();
    wrong.set_port(mqtt.port()).unwrap();
    let reason = refused(&hub(wrong.as_str())).await;
    assert!(matches!(reason, HubReason::TlsFailed | HubReason::ConnectionLost), "{reason:?}");
}
