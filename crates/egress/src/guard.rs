//! A second table, which drops whatever the first one did not pass, or did not give the host's address on its way out, and
//! which no other program can take away.
//!
//! `nft flush ruleset` takes every table but those that have an owner: a process that holds the socket by which the table
//! was made (Linux 5.12). So a `nft` of ours makes this one, and waits for more commands for ever. It is no child that ends
//! with the server, as VMs are not; the next server finds the table there and goes on with it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::EgressError;
use crate::nft;
use crate::plan::PREFIX;
use crate::ruleset::PASSED;

const TABLE: &str = "inet rds-guard";

/// What the process calls itself, for people and for [`end`].
const NAME: &str = "rds-guard";

/// How long it may take to make the table; ten milliseconds are usual.
const LIMIT: Duration = Duration::from_secs(5);

/// The table, as one line: `nft` takes each as a transaction.
fn table() -> String {
    let mut text = format!("add table {TABLE} {{ flags owner; }}; ");
    for (hook, ends) in [("forward", &["iifname", "oifname"][..]), ("input", &["iifname"]), ("output", &["oifname"])] {
        text +=
            &format!("add chain {TABLE} {hook} {{ type filter hook {hook} priority filter + 1; policy accept; }}; ");
        for end in ends {
            text += &format!("add rule {TABLE} {hook} {end} \"{PREFIX}*\" meta mark & {PASSED} == 0 drop; ");
        }
    }
    text +=
        &format!("add chain {TABLE} leave {{ type filter hook postrouting priority srcnat + 1; policy accept; }}; ");
    text + &format!("add rule {TABLE} leave iifname \"{PREFIX}*\" ct status ! snat drop; \n")
}

/// Has the table there, and owned by somebody.
pub(crate) async fn ensure(program: &Path) -> Result<(), EgressError> {
    if is_there(program).await {
        return Ok(());
    }
    start(program).map_err(EgressError::system("start the guard"))?;
    let begun = Instant::now();
    while !is_there(program).await {
        if begun.elapsed() > LIMIT {
            end().map_err(EgressError::system("end the guard"))?;
            return Err(EgressError::Refused("this kernel or this nft knows no tables with an owner".into()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn is_there(program: &Path) -> bool {
    nft::show(program, &format!("table {TABLE}")).await.is_ok_and(|text| {
        let rules = text.lines().filter(|line| line.trim_end().ends_with(" drop")).count();
        text.contains("flags owner") && rules == table().matches(" drop;").count()
    })
}

/// Starts the process. Its input never ends: it is a pipe that the process itself could write to.
fn start(program: &Path) -> io::Result<()> {
    let (reader, _writer) = io::pipe()?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let mut both = File::options().read(true).write(true).open(path)?;
    both.write_all(table().as_bytes())?;
    let mut command = Command::new(program);
    // What a terminal sends to the server is not meant for it.
    command.arg0(NAME).arg("-i").env_clear().env("LC_ALL", "C").process_group(0).current_dir("/");
    command.stdin(both).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Ends every such process of this network namespace; the table goes with it.
pub(crate) fn end() -> io::Result<()> {
    let own = fs::read_link("/proc/thread-self/ns/net")?;
    let words = [NAME.as_bytes(), b"\0-i"].concat();
    for process in fs::read_dir("/proc")?.flatten() {
        let is_one = fs::read(process.path().join("cmdline")).is_ok_and(|line| line.starts_with(&words));
        if !is_one || fs::read_link(process.path().join("ns/net")).ok().as_ref() != Some(&own) {
            continue;
        }
        if let Some(pid) = process.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) {
            kill_process(pid, Signal::KILL)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guard_is_one_line() {
        let text = super::table();
        assert!(text.ends_with("; \n") && text.lines().count() == 1);
        insta::assert_snapshot!(text.trim_end().replace("; ", ";\n"));
    }
}
