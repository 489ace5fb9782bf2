//! A handler of the tests that does what a message asks of it: it takes its time, dies in one of several ways, or refuses.

use std::process::exit;
use std::time::Duration;

use axum::{Router, body::Bytes, http::StatusCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    axum::serve(listener, Router::new().fallback(handle)).await?;
    Ok(())
}

async fn handle(body: Bytes) -> StatusCode {
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(seconds) = message["seconds"].as_u64() {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    match message["kill"].as_str() {
        None => StatusCode::OK,
        Some("busy") => StatusCode::SERVICE_UNAVAILABLE,
        // What a segfault is to a kubelet: the end by a signal.
        Some("abort") => std::process::abort(),
        Some("memory") => fill(),
        Some("stack") => StatusCode::from_u16(overflow(200)).unwrap_or(StatusCode::OK),
        Some("loop") => loop {
            std::hint::spin_loop();
        },
        Some(_) => exit(1),
    }
}

/// Takes memory until the kernel ends it.
fn fill() -> StatusCode {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(std::hint::black_box(vec![1; 16 << 20]));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Never returns, and not as a loop.
fn overflow(n: u16) -> u16 {
    let frame = std::hint::black_box([n; 1024]);
    if std::hint::black_box(n) > 0 { overflow(n.max(1)).max(frame[7]) } else { n }
}
