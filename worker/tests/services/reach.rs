//! The hub of the tests, and workers in this process: how they are reached, asked and waited for.

use std::{future::Future, net::SocketAddr, time::Duration};

use drover_worker::{hub::HubAddress, tls::Material};
use lapin::{Channel, message::BasicGetMessage, options::BasicGetOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::variables::file;

pub(crate) fn hub(uri: &str) -> HubAddress {
    HubAddress { uri: uri.to_owned(), tls: Material { ca: Some(file("DROVER_TEST_CA")), ..Material::default() } }
}

/// Asks until the answer is right, which is within `patience`, or never.
pub(crate) async fn within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Takes everything out of a queue.
pub(crate) async fn take(channel: &Channel, queue: &str) -> Vec<BasicGetMessage> {
    let mut taken = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        taken.push(message);
    }
    taken
}

/// Status and body of what a worker answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}
