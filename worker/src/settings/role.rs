//! Which of the pipeline's queues a worker reads.

use std::str::FromStr;

use drover_crds::resolved;

/// Which of the pipeline's queues a worker reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// The source.
    #[default]
    Main,
    /// What was in flight at a crash, some at a time.
    Suspects1,
    /// What was in flight at another crash, one at a time.
    Suspects2,
}

impl Role {
    /// The step of suspects, from 1.
    #[must_use]
    pub fn step(self) -> Option<u8> {
        match self {
            Self::Main => None,
            Self::Suspects1 => Some(1),
            Self::Suspects2 => Some(2),
        }
    }

    /// The queue that is read.
    #[must_use]
    pub fn queue(self, source: &str) -> String {
        self.step().map_or_else(|| source.to_owned(), |step| resolved::suspects_queue(source, step))
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "main" => Ok(Self::Main),
            "suspects-1" => Ok(Self::Suspects1),
            "suspects-2" => Ok(Self::Suspects2),
            _ => Err("there is no such role"),
        }
    }
}
