//! Waits for a hub as the operator does: one that takes more than a moment to connect to is asked again.

use drover_operator::{hub::Hub, problem::Problem};

/// What is answered once there is a connection.
pub(crate) async fn patient<T>(mut ask: impl AsyncFnMut() -> Result<T, Problem>) -> Result<T, Problem> {
    loop {
        match ask().await {
            Err(problem) if problem.reason == "Connecting" => {}
            answer => return answer,
        }
    }
}

/// A channel.
pub(crate) async fn channel(hub: &Hub) -> lapin::Channel {
    patient(async || hub.channel().await).await.unwrap()
}
