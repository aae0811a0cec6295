//! `rds audit`: the log of calls between VMs, and whether it is whole.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use rds_peers::audit::{Broken, ChainHash, Head};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;

use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Stream};

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List calls, newest first
    #[command(alias = "list")]
    Ls(Ls),
    /// Write the log to standard output, oldest first, a line of JSON for each call
    Export,
    /// Check that no record was changed, removed, inserted or moved
    Verify {
        /// An export; without one, the server's log is read
        file: Option<PathBuf>,
        /// The last record's hash as it was written down elsewhere: shows whether records were cut off, or all made anew
        #[arg(long, value_name = "HASH")]
        expect: Option<ChainHash>,
    },
}

/// Which calls.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The calling VM; one that is gone by its whole id
    #[arg(long, value_name = "VM")]
    consumer: Option<String>,
    /// The called VM; one that is gone by its whole id
    #[arg(long, value_name = "VM")]
    provider: Option<String>,
    /// The alias that was called
    #[arg(long)]
    alias: Option<String>,
    /// The export that was called
    #[arg(long, value_name = "NAME")]
    export: Option<String>,
    /// How they ended
    #[arg(long, value_parser = ["returned", "threw", "refused", "timed_out", "cancelled", "failed"])]
    outcome: Option<String>,
    /// The first moment (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The first moment that is too late (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those before this number in the log
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// How many, at most 1000
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

impl Audit {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        match self {
            Self::Ls(wish) => wish.list(&client, shared.json).await?,
            Self::Export => export(&client).await?,
            Self::Verify { file, expect } => {
                let head = match file {
                    Some(file) => {
                        let lines = File::open(&file).await.map_err(CliError::file(&file))?;
                        verify(BufReader::new(lines), &file).await?
                    }
                    None => verify_server(&client).await?,
                };
                expect.map_or(Ok(()), |expect| head.end(expect)).map_err(|broken| broken_log(&broken))?;
                tell(head, shared.json);
            }
        }
        Ok(0)
    }
}

impl Ls {
    async fn list(self, client: &Client, json: bool) -> Result<(), CliError> {
        let (consumer, provider) = (vm(client, self.consumer).await?, vm(client, self.provider).await?);
        let (before, limit) = (self.before.map(|place| place.to_string()), Some(self.limit.to_string()));
        let query: Vec<(&str, String)> = [
            ("consumer", consumer),
            ("provider", provider),
            ("alias", self.alias),
            ("export", self.export),
            ("outcome", self.outcome),
            ("since", self.since),
            ("until", self.until),
            ("before", before),
            ("limit", limit),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        let page: Value = client.json(client.request(Method::GET, &["v1", "audit"]).query(&query)).await?;
        if json {
            output::json(&page);
            return Ok(());
        }
        let entries = page.get("entries").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        output::line(&table(entries));
        Ok(())
    }
}

/// Records as a person reads them.
pub(super) fn table(entries: &[Value]) -> String {
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    output::table(&["#", "TIME", "CONSUMER", "ALIAS", "MODULE", "EXPORT", "OUTCOME", "MS", "STRUCK", "RULE"], &rows)
}

/// The id of a VM; what no VM is called may be the id of one that is gone.
async fn vm(client: &Client, wanted: Option<String>) -> Result<Option<String>, CliError> {
    let Some(wanted) = wanted else { return Ok(None) };
    match client.find_vm(&wanted).await {
        Err(CliError::NotFound(_)) => Ok(Some(wanted)),
        found => found.map(Some),
    }
}

fn row(entry: &Value) -> Vec<String> {
    let text = |field| entry.get(field).and_then(Value::as_str).map_or_else(|| "-".into(), output::printable);
    let number = |field| entry.get(field).and_then(Value::as_u64).unwrap_or_default();
    let ms = format!("{:.1}", number("durationUs") as f64 / 1000.0);
    let texts = ["time", "consumer", "alias", "module", "export", "outcome"].map(text);
    [vec![number("sequence").to_string()], texts.to_vec(), vec![ms, number("strikes").to_string(), text("rule")]]
        .concat()
}

fn export_request(client: &Client) -> RequestBuilder {
    client.request(Method::GET, &["v1", "audit"]).query(&[("format", "jsonl")])
}

async fn export(client: &Client) -> Result<(), CliError> {
    let mut reply = client.send(export_request(client)).await?;
    while let Some(chunk) = reply.chunk().await.map_err(|error| client.transport(&error))? {
        output::pass(Stream::Out, &chunk)?;
    }
    Ok(())
}

async fn verify_server(client: &Client) -> Result<Head, CliError> {
    let reply = client.send(export_request(client)).await?;
    let lines = StreamReader::new(reply.bytes_stream().map_err(std::io::Error::other));
    verify(lines, Path::new("the server's export")).await
}

/// Reads an export to its end.
async fn verify(lines: impl AsyncBufRead + Unpin, source: &Path) -> Result<Head, CliError> {
    let (mut lines, mut head) = (lines.split(b'\n'), Head::START);
    while let Some(line) = lines.next_segment().await.map_err(CliError::file(source))? {
        follow(&mut head, &line).map_err(|broken| broken_log(&broken))?;
    }
    Ok(head)
}

fn follow(head: &mut Head, line: &[u8]) -> Result<(), Broken> {
    head.follow_line(&String::from_utf8_lossy(line))
}

fn broken_log(broken: &Broken) -> CliError {
    CliError::Failed(broken.to_string())
}

fn tell(head: Head, json: bool) {
    let (records, hash) = (head.records, head.hash.to_string());
    if json {
        output::json(&serde_json::json!({ "records": records, "hash": hash }));
    } else {
        output::line(&format!("{records} records, all as they were written\n{hash}"));
    }
}

#[cfg(test)]
mod tests {
    use rds_peers::audit::{Call, Outcome, Record, damaged_line};

    use super::*;

    fn log(length: usize) -> Vec<u8> {
        let mut head = Head::START;
        let line = |n: usize| {
            let call = Call {
                time: "2026-01-02T03:04:05.678Z".into(),
                consumer: "c".into(),
                alias: format!("a{n}"),
                provider: None,
                module: "m".into(),
                export: "e".into(),
                args_bytes: 0,
                result_bytes: 0,
                duration_us: 1,
                outcome: Outcome::Refused,
                rule: None,
                secret_version: None,
                strikes: 0,
            };
            let record = head.append(call);
            Record::line(&record.hash.to_string(), &record.text) + "\n"
        };
        (0..length).map(line).collect::<String>().into_bytes()
    }

    async fn read(log: &[u8]) -> Result<Head, CliError> {
        verify(log, Path::new("log")).await
    }

    #[tokio::test]
    async fn any_changed_byte_of_an_export_is_found_at_its_record() {
        let log = log(3);
        assert_eq!(read(&log).await.unwrap().records, 3);
        assert_eq!(read(&log[..log.len() - 1]).await.unwrap().records, 3, "the last line may have no end");
        let mut at = 0;
        for place in 0..log.len() - 1 {
            let mut changed = log.clone();
            changed[place] ^= 1;
            let error = read(&changed).await.unwrap_err();
            let expected = format!("the audit log is broken at record {at}: ");
            assert!(error.to_string().starts_with(&expected), "byte {place}: {error}");
            assert_eq!(error.exit_code(), 1);
            at += usize::from(log[place] == b'\n');
        }
    }

    #[tokio::test]
    async fn what_the_server_found_damaged_is_told() {
        let mut log = log(2);
        log.extend_from_slice(damaged_line(1).as_bytes());
        let expected = "the audit log is broken at record 1: what it is searched by is not what it says";
        assert_eq!(read(&log).await.unwrap_err().to_string(), expected);
    }

    #[tokio::test]
    async fn an_export_that_was_cut_off_is_found_by_its_last_hash() {
        let (whole, cut) = (log(3), log(2));
        let (whole, cut) = (read(&whole).await.unwrap(), read(&cut).await.unwrap());
        assert!(whole.end(whole.hash).is_ok() && cut.end(whole.hash).is_err());
    }
}
