//! Network namespaces of the benchmark's own: what it makes there is nothing of this machine's network.

use std::future::Future;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;
use tokio::io::AsyncWriteExt as _;

use crate::error::CliError;

/// Why there can be none on this machine.
pub(super) fn missing() -> Option<&'static str> {
    let there = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if !rustix::process::geteuid().is_root() {
        return Some("root is needed for network namespaces");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun");
    }
    (!["ip", "nft"].iter().all(|program| there(program))).then_some("ip and nft are needed")
}

/// Does work in a fresh namespace, on a thread of its own: what it starts is in there, too.
pub(super) async fn apart<T, W>(work: impl FnOnce() -> W + Send + 'static) -> Result<T, CliError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, CliError>>,
{
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(enter().and_then(|runtime| runtime.block_on(work())));
    });
    result.await.map_err(|_| CliError::Failed("a thread in a network namespace ended".into()))?
}

fn enter() -> Result<tokio::runtime::Runtime, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("a network namespace: {error}"));
    // SAFETY: the thread is new, and shares no files that it would lose.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| failed(error.into()))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)
}

/// Runs a program that reads `input`, to its good end.
pub(super) async fn run(program: &str, arguments: &str, input: &str) -> Result<(), CliError> {
    finish(program, arguments, input).await.map(drop)
}

/// What a program says.
pub(super) async fn output(program: &str, arguments: &str) -> Result<String, CliError> {
    finish(program, arguments, "").await
}

async fn finish(program: &str, arguments: &str, input: &str) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("{program} {arguments}: {error}"));
    let mut command = tokio::process::Command::new(program);
    command.args(arguments.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}
