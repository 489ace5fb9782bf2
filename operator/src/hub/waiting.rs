//! How many messages wait in queues.

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use super::{
    pool::Hub,
    reply::{is_missing, lost, short},
};
use crate::problem::Problem;

impl Hub {
    /// Messages that wait in each of these queues; what is delivered and not acknowledged is not counted. None wait in a queue that does not exist.
    ///
    /// # Errors
    /// If the hub does not answer.
    pub async fn waiting(&self, queues: &[String]) -> Result<Vec<u32>, Problem> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut counts = Vec::with_capacity(queues.len());
        for queue in queues {
            // A queue that is missing costs the channel.
            let channel = self.channel().await?;
            counts.push(match channel.queue_declare(short(queue)?, passive, FieldTable::default()).await {
                Ok(found) => found.message_count(),
                Err(error) if is_missing(&error) => 0,
                Err(error) => return Err(lost(&error)),
            });
            let _ = channel.close(200, "done".into()).await;
        }
        Ok(counts)
    }
}
