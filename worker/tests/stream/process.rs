//! Workers as processes of their own: started, killed, stopped for longer than their lease, asked to end.

use std::process::{Child, Command, Stdio};

use crate::surroundings::Lane;

/// Ends with the test, however that ends.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(lane: &Lane, query: &str, more: &[(&str, &str)]) -> Self {
        Self::limited(lane, query, more, None)
    }

    /// With a limit of its address space, in KiB.
    pub(crate) fn limited(lane: &Lane, query: &str, more: &[(&str, &str)], kib: Option<u64>) -> Self {
        let worker = env!("CARGO_BIN_EXE_drover-worker");
        let mut command = if let Some(kib) = kib {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" query"), worker]);
            shell
        } else {
            let mut command = Command::new(worker);
            command.arg("query");
            command
        };
        command.envs(lane.variables(query, more)).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// SIGTERM, and whether it ended well.
    pub(crate) async fn terminate(mut self) -> bool {
        self.signal("-TERM");
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
