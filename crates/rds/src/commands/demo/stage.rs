//! VMs of a demonstration: all are removed in the end, also after a failure or ctrl-c.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{CreateVm, RunResult};
use crate::client::Client;
use crate::error::CliError;
use crate::{archive, output, progress};

/// Where a demonstration happens. Whoever makes one clears it.
pub(super) struct Stage {
    pub(super) client: Client,
    mem_mb: u32,
    vms: Vec<String>,
    interrupt: Signal,
}

impl Stage {
    /// An empty one for VMs of so much memory.
    pub(super) fn new(client: Client, mem_mb: u32) -> Result<Self, CliError> {
        let interrupt = signal(SignalKind::interrupt()).map_err(CliError::file("signals"))?;
        Ok(Self { client, mem_mb, vms: Vec::new(), interrupt })
    }

    /// Makes a VM and gives its id. Not given up halfway: a VM that is being made has no name yet by which it could be
    /// removed.
    pub(super) async fn create(&mut self, what: &str, wish: CreateVm) -> Result<String, CliError> {
        let wish = CreateVm { cpu: 1, mem_mb: self.mem_mb, ..wish };
        let vm = progress::step(what, self.client.create_vm(&wish)).await?;
        self.vms.push(vm.id.clone());
        Ok(vm.id)
    }

    /// Does something that ctrl-c ends.
    pub(super) async fn step<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Err(CliError::Failed("interrupted".into())),
            done = progress::step(what, work) => done,
        }
    }

    /// Puts files into a VM.
    pub(super) async fn upload(&mut self, what: &str, vm: &str, to: &str, files: &[File]) -> Result<(), CliError> {
        let archive = archive::pack_files(files).map_err(CliError::file("demo"))?;
        let client = self.client.clone();
        self.step(what, client.upload(vm, to, archive)).await
    }

    /// Runs a program and gives what it set as its result.
    pub(super) async fn run(
        &mut self,
        what: &str,
        vm: &str,
        call: &str,
        body: serde_json::Value,
    ) -> Result<serde_json::Value, CliError> {
        let client = self.client.clone();
        let run: RunResult = self.step(what, client.post_vm(vm, call, &body)).await?;
        if run.exit_code != 0 {
            return Err(CliError::Failed(format!("{call} failed: {}", output::printable(&run.stderr))));
        }
        Ok(run.rest.get("result").cloned().unwrap_or_default())
    }

    /// Removes all VMs; tells the first failure.
    pub(super) async fn clear(&mut self) -> Result<(), CliError> {
        let mut outcome = Ok(());
        while let Some(id) = self.vms.pop() {
            let removed = progress::step("remove a VM", self.client.delete_vm(&id)).await;
            outcome = outcome.and(removed);
        }
        outcome
    }
}

/// A file's path and what is in it.
pub(super) type File = (&'static str, &'static [u8]);
