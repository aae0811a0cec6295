//! The audit log of peer calls: who called what and how it ended, never with which values.
//!
//! Calls are handed to one task, which chains them by their hashes ([`rds_peers::audit`]) and writes them down in
//! batches. Nothing is dropped: while the database does not take records, they wait; when too many wait, so do the calls
//! that would add to them, and then they are refused. A record is made when its call ends. So a crash of the server loses those of calls under way, and
//! what was handed over and not yet written, mostly the last [`LINGER`]; an orderly end gives calls up and writes all.
//! [`Audit::flush`] waits for what was handed over, and reading the log does for a while.
//!
//! Must not know what a call is made of, or who may read the log.

use std::time::Duration;

use rds_peers::audit::{Call, Entry, Head, Record};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock;
use crate::error::{Chain, Error, Result};
use crate::store::Store;
use crate::store::audit::{AuditFilter, AuditRange, AuditRow, StoredRecord};

/// Calls that are under way or wait to be written at most. One takes about 300 bytes.
const QUEUE: usize = 8192;
/// Records that are written at once at most.
const BATCH: usize = 512;
/// What the task waits for more records before it writes, because a commit costs as much as many records.
const LINGER: Duration = Duration::from_millis(20);
/// Pause before trying again what the database did not take.
const RETRY: Duration = Duration::from_millis(500);

/// How long a call waits for room for its record.
const ROOM_LIMIT: Duration = Duration::from_secs(5);
/// How long a reader waits for what was handed over to be written.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    store: Store,
    queue: mpsc::Sender<Message>,
}

#[derive(Debug)]
enum Message {
    Call(Box<Call>),
    Flush(oneshot::Sender<()>),
}

/// Room for the record of one call. Dropped without a call, it is given back.
#[derive(Debug)]
pub struct Slot(OwnedPermit<Message>);

impl Slot {
    /// Hands the call over to be written down; takes no time.
    pub fn fill(self, call: Call) {
        self.0.send(Message::Call(Box::new(call)));
    }
}

impl Audit {
    /// Reads where the log ends, and starts the task that writes it.
    pub async fn open(store: Store) -> Result<Self> {
        let head = head(&store).await?;
        let (queue, messages) = mpsc::channel(QUEUE);
        tokio::spawn(Writer { store: store.clone(), head }.run(messages));
        Ok(Self { store, queue })
    }

    /// Waits a while for room for a record. Taken before a call is made, it makes sure that the call can be recorded however
    /// it ends, even if its future is dropped.
    pub async fn reserve(&self) -> Result<Slot> {
        let unavailable = |why: &str| Error::Unavailable(format!("The audit log takes no records: {why}"));
        match timeout(ROOM_LIMIT, self.queue.clone().reserve_owned()).await {
            Ok(Ok(permit)) => Ok(Slot(permit)),
            Ok(Err(_)) => Err(unavailable("it is closed")),
            Err(_) => Err(unavailable("too many wait to be written")),
        }
    }

    /// Waits a while until what was handed over before can be read. While the database takes nothing, the log is read as far
    /// as it is written.
    pub async fn catch_up(&self) {
        if timeout(READ_LIMIT, self.flush()).await.is_err() {
            tracing::warn!("records of the audit log are not written yet; it is read without them");
        }
    }

    /// Waits until everything that was handed over before is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // It fails if the task has ended, which it told the log.
            let _ = written.await;
        }
    }

    /// Where the log ends.
    pub async fn head(&self) -> Result<Head> {
        self.catch_up().await;
        head(&self.store).await
    }

    /// At most `limit` records of a part of the log.
    pub async fn records(&self, filter: &AuditFilter, range: AuditRange, limit: u32) -> Result<Vec<Found>> {
        let rows = self.store.audit(filter, range, i64::from(limit)).await?;
        Ok(rows.into_iter().map(Found::from).collect())
    }
}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it is kept.
    pub stored: StoredRecord,
    /// What it says; `None` if it is no record, or is not found by what it says.
    pub entry: Option<Entry>,
}

impl From<AuditRow> for Found {
    /// The parts that a record is found by are no part of the chain of hashes: whoever can write to the database could hide
    /// a call in lists by changing them.
    fn from(row: AuditRow) -> Self {
        let entry = serde_json::from_str(&row.stored.text).ok();
        let entry = entry.filter(|entry: &Entry| AuditRow::new(row.stored.clone(), &entry.call) == row);
        Self { stored: row.stored, entry }
    }
}

/// Where the stored log ends.
async fn head(store: &Store) -> Result<Head> {
    let Some(last) = store.last_audit().await? else { return Ok(Head::START) };
    let damaged = |why: &dyn ToString| {
        Error::internal(format!("the last record of the audit log, {}, is damaged", last.sequence), why.to_string())
    };
    let hash = last.hash.parse().map_err(|why| damaged(&why))?;
    let records = u64::try_from(last.sequence).map_err(|why| damaged(&why))? + 1;
    Ok(Head { records, hash })
}

/// The one that writes.
struct Writer {
    store: Store,
    head: Head,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::new();
        while let Some(first) = messages.recv().await {
            batch.push(first);
            tokio::time::sleep(LINGER).await;
            while batch.len() < BATCH
                && let Ok(message) = messages.try_recv()
            {
                batch.push(message);
            }
            let (mut calls, mut waiting) = (Vec::new(), Vec::new());
            for message in batch.drain(..) {
                match message {
                    Message::Call(call) => calls.push(*call),
                    Message::Flush(done) => waiting.push(done),
                }
            }
            self.write(&calls).await;
            for done in waiting {
                // Who waited may have gone.
                let _ = done.send(());
            }
        }
    }

    /// Writes records until the database has them.
    async fn write(&mut self, calls: &[Call]) {
        if calls.is_empty() {
            return;
        }
        loop {
            let mut end = self.head;
            let rows: Vec<_> = calls.iter().map(|call| row(&mut end, call)).collect();
            let Err(error) = self.store.add_audit(&rows).await else {
                self.head = end;
                return;
            };
            tracing::error!(error = %Chain(&error), records = rows.len(), "cannot write the audit log; trying again");
            tokio::time::sleep(RETRY).await;
            // The records may be there, and only the answer was lost. If the log ends elsewhere, it goes on from there.
            match head(&self.store).await {
                Ok(found) if found == end => {
                    self.head = end;
                    return;
                }
                Ok(found) => self.head = found,
                Err(_) => {}
            }
        }
    }
}

fn row(head: &mut Head, call: &Call) -> AuditRow {
    let sequence = i64::try_from(head.records).expect("nobody makes so many calls");
    let Record { text, hash } = head.append(call.clone());
    AuditRow::new(StoredRecord { sequence, text, hash: hash.to_string() }, call)
}

impl AuditRow {
    fn new(stored: StoredRecord, call: &Call) -> Self {
        Self {
            stored,
            time: clock::parse(&call.time).unwrap_or_default(),
            consumer: call.consumer.clone(),
            provider: call.provider.clone(),
            alias: call.alias.clone(),
            export: call.export.clone(),
            outcome: call.outcome.name().to_owned(),
        }
    }
}
