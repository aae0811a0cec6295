//! The database: one file per table, plain functions over one pool.
//!
//! SQLite and Postgres run the same statements, so everything here keeps to what both understand: text, 64-bit integers,
//! `$1` placeholders, `ON CONFLICT` and `RETURNING`. Every change is one statement where it can be; that keeps SQLite
//! free of lock upgrades. This module must not know services, HTTP or files.

pub mod activity;
pub mod api_keys;
pub mod audit;
pub mod exec_logs;
pub mod idempotency;
pub mod images;
mod installation;
pub mod secrets;
pub mod sessions;
pub mod snapshots;
pub mod vms;
pub mod webhooks;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection as _, Executor, Transaction};
use tokio::sync::Mutex;

use crate::config::Dialect;
use crate::error::{Error, Result};
use crate::file_lock;

use idempotency::UnderWay;

/// The open database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    dialect: Dialect,
    pool: AnyPool,
    /// Keeps the database to one server.
    lock: Arc<Mutex<Option<Lock>>>,
    /// For what not even a power cut may undo, once it was acknowledged.
    durable: AnyPool,
    under_way: UnderWay,
}

/// What keeps a database to one server: it is given back when this is dropped, and when the process ends, however.
#[derive(Debug)]
enum Lock {
    /// The connection that has it, to Postgres.
    Connection(AnyConnection),
    /// A file beside SQLite's.
    File(#[expect(dead_code, reason = "it is held, not read")] File),
}

impl Store {
    /// Opens a SQLite file, made if there is none, and brings its tables up to date. A conflict if another server has it
    /// open, whatever the storage root of that one is.
    ///
    /// Only this process's user may read a new file: hashes of keys and sessions are in it.
    pub async fn sqlite(file: &Path) -> Result<Self> {
        let make = File::options().create(true).append(true).mode(0o600).open(file);
        make.map_err(|error| Error::internal(format!("cannot open the database {}", file.display()), error))?;
        let mut url = url_of_file(file)?;
        url.push_str("?mode=rwc");
        let own = file.to_owned();
        let lock = tokio::task::spawn_blocking(move || lock_file(&own)).await;
        let lock = lock.map_err(|error| Error::internal("cannot lock the database", error))??;
        Self::open(&url, Dialect::Sqlite, Some(lock)).await
    }

    /// Connects to a Postgres database and brings its tables up to date. A conflict if another server is connected.
    pub async fn postgres(url: &str) -> Result<Self> {
        Self::open(url, Dialect::Postgres, None).await
    }

    async fn open(url: &str, dialect: Dialect, file_lock: Option<File>) -> Result<Self> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);

        let fail = |error: sqlx::Error| Error::internal("cannot open the database", error);
        let options: AnyConnectOptions = url.parse().map_err(fail)?;
        let options = options.log_statements(tracing::log::LevelFilter::Trace);
        let with = |connections, pragmas: &'static str| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(10)).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        if dialect == Dialect::Sqlite {
                            connection.execute(SQLITE_PRAGMAS).await?;
                            connection.execute(pragmas).await?;
                        }
                        Ok(())
                    })
                },
            )
        };
        let pool =
            with(CONNECTIONS, "PRAGMA synchronous = NORMAL").connect_with(options.clone()).await.map_err(fail)?;
        let lock = match dialect {
            Dialect::Postgres => Some(Lock::Connection(lock(&pool).await?)),
            Dialect::Sqlite => file_lock.map(Lock::File),
        };
        let durable = match dialect {
            Dialect::Sqlite => with(1, "PRAGMA synchronous = FULL").connect_lazy_with(options),
            Dialect::Postgres => pool.clone(),
        };
        sqlx::migrate!()
            .run(&pool)
            .await
            .map_err(|error| Error::internal("cannot bring the database's tables up to date", error))?;
        Ok(Self { dialect, pool, durable, lock: Arc::new(Mutex::new(lock)), under_way: UnderWay::default() })
    }

    /// Begins to write. Each of SQLite's writers waits for its turn here: one that has read something before its first write
    /// is refused at once if another has written meanwhile, whatever it would wait (`SQLITE_BUSY_SNAPSHOT`).
    async fn begin(&self) -> Result<Transaction<'static, Any>> {
        Ok(match self.dialect {
            Dialect::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::Postgres => self.pool.begin().await?,
        })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Waits for what is under way and closes the connections.
    pub async fn close(&self) {
        self.durable.close().await;
        self.pool.close().await;
        if let Some(Lock::Connection(lock)) = self.lock.lock().await.take()
            && let Err(error) = lock.close().await
        {
            tracing::debug!(%error, "the database did not say goodbye");
        }
    }
}

/// Takes a SQLite file for this process, by whatever name it is called. Not by a lock on the file itself: closing that would
/// take SQLite's own locks away.
fn lock_file(file: &Path) -> Result<File> {
    let failed = |error| Error::internal(format!("cannot open the database {}", file.display()), error);
    let mut path = file.canonicalize().map_err(failed)?.into_os_string();
    path.push("-lock");
    file_lock::take(Path::new(&path), || {
        format!(
            "another server is using the database {}: stop it, or give this one another SQLITE_PATH",
            file.display()
        )
    })
}

/// Takes a Postgres database, or the schema of it that is used, for this process.
async fn lock(pool: &AnyPool) -> Result<AnyConnection> {
    let mut connection = pool.acquire().await?.detach();
    connection.execute(POSTGRES_KEEPALIVE).await?;
    let begun = Instant::now();
    loop {
        let taken = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, hashtext(current_schema()))").bind(LOCK);
        if taken.fetch_one(&mut connection).await? {
            return Ok(connection);
        }
        if begun.elapsed() > LOCK_PATIENCE {
            let what = "another server is using the database: stop it, or give this one another DATABASE_URL";
            return Err(Error::conflict(what));
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// Statements take a fraction of a millisecond; more connections would only hold more memory.
const CONNECTIONS: u32 = 4;

/// First half of the advisory lock's key; any number that other programs in the database do not happen to use.
const LOCK: i32 = 0x7264_7321;

/// Postgres takes the lock back half a minute after the lock's host is gone, and not after two hours. Has no effect on Unix
/// sockets.
const POSTGRES_KEEPALIVE: &str =
    "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;";

/// How long the lock is waited for: Postgres takes a moment to notice that a server was killed.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Readers don't wait for the writer (WAL), a writer waits for another up to 10 s, and a commit survives a crash of the
/// process; after a power cut the last commits may be missing that no durable one followed, but the file is whole. A connection
/// caches 1 MiB.
const SQLITE_PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; \
                              PRAGMA cache_size = -1024;";

/// The driver takes a URL, in which `?`, `#` and `%` of a file name would mean something else.
fn url_of_file(file: &Path) -> Result<String> {
    let text = file.to_str().ok_or_else(|| Error::invalid("SQLITE_PATH is not valid UTF-8"))?;
    let mut url = String::from("sqlite://");
    for character in text.chars() {
        match character {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            other => url.push(other),
        }
    }
    Ok(url)
}

/// The one place where the database's refusals get a meaning.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable("The database is busy".into()),
            sqlx::Error::Database(cause) if cause.is_unique_violation() => {
                Self::conflict("Another one like it already exists")
            }
            sqlx::Error::Database(cause) if cause.is_foreign_key_violation() => {
                Self::conflict("It refers to something that does not exist, or is still in use")
            }
            // Postgres keeps no NUL in a text; SQLite does.
            sqlx::Error::Database(cause) if cause.code().as_deref() == Some("22021") => {
                Self::invalid("A text has a character that the database cannot keep, such as NUL")
            }
            _ => Self::internal("the database failed", error),
        }
    }
}
