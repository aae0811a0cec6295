//! Running `nft`: text in, its words out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::EgressError;
use crate::report::{self, Contents};

/// How long a transaction may take; ten milliseconds are usual.
const LIMIT: Duration = Duration::from_secs(20);

/// Where the distributions put it; a service's `PATH` often lacks the administrator's programs.
const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];

/// The program.
pub(crate) fn find() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Carries out a script as one transaction; nothing of it holds after an error.
pub(crate) async fn change(program: &Path, script: &str) -> Result<(), EgressError> {
    run(program, &["-f", "-"], script).await.map(drop)
}

/// Whether the kernel would take a script. Changes nothing.
pub(crate) async fn check(program: &Path, script: &str) -> Result<(), EgressError> {
    run(program, &["-c", "-f", "-"], script).await.map(drop)
}

/// Lists one thing, as JSON. In a script, or of several things, the older versions list nothing.
pub(crate) async fn list(program: &Path, what: &str) -> Result<Contents, EgressError> {
    let words: Vec<&str> = ["-j", "list"].into_iter().chain(what.split(' ')).collect();
    let json = run(program, &words, "").await?;
    report::read(&json).map_err(|error| EgressError::Refused(error.to_string()))
}

/// Shows one thing, for people.
pub(crate) async fn show(program: &Path, what: &str) -> Result<String, EgressError> {
    let words: Vec<&str> = ["list"].into_iter().chain(what.split(' ')).collect();
    run(program, &words, "").await
}

async fn run(program: &Path, options: &[&str], script: &str) -> Result<String, EgressError> {
    let mut command = Command::new(program);
    command.args(options).env_clear().env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(EgressError::system("start nft"))?;
    let input = child.stdin.take();
    let script = script.to_owned();
    // It reads all before it says anything; a large answer must not wait for the end of a large script.
    let written = async move {
        if let Some(mut input) = input {
            let _ = input.write_all(script.as_bytes()).await;
        }
    };
    let ended = timeout(LIMIT, async { tokio::join!(written, child.wait_with_output()).1 }).await;
    let output = ended.map_err(|_| EgressError::Timeout)?.map_err(EgressError::system("run nft"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(EgressError::Refused(words.lines().take(3).collect::<Vec<_>>().join(" ")))
}
