//! What lives as long as the server.

use std::sync::Arc;

use crate::config::{Config, Dialect};
use crate::error::{Error, Result};
use crate::storage::{self, Lock};
use crate::store::Store;

/// The services and what they share. Handlers get it as `State<Arc<App>>`.
#[derive(Debug)]
pub struct App {
    /// What the operator decided.
    pub config: Config,
    /// The database.
    pub store: Store,
    _lock: Lock,
}

impl App {
    /// Takes the storage root for this process, opens the database and starts the services.
    pub async fn start(config: Config) -> Result<Arc<Self>> {
        let lock = storage::prepare(&config.storage)?;
        let store = open_store(&config).await?;
        Ok(Arc::new(Self { config, store, _lock: lock }))
    }
}

async fn open_store(config: &Config) -> Result<Store> {
    use secrecy::ExposeSecret as _;
    match (config.database.db_dialect, &config.database.database_url) {
        (Dialect::Postgres, Some(url)) => Store::postgres(url.expose_secret()).await,
        (Dialect::Postgres, None) => Err(Error::invalid("DB_DIALECT is postgres but DATABASE_URL is not set")),
        (Dialect::Sqlite, _) => {
            let file = config.database.sqlite_path.clone();
            Store::sqlite(&file.unwrap_or_else(|| config.storage.storage_root.join("manager.db"))).await
        }
    }
}
