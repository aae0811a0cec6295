//! What the operator decides: flags, environment, configuration file, in this order; then the defaults.
//!
//! One struct per concern. Every field is a flag (`--max-vms`), an environment variable (`MAX_VMS`) and a key of the file
//! (`max_vms`) at once. A value that makes no sense is refused here, in one line, so that the rest of the program can
//! believe what it reads. Secrets are [`secrecy::SecretString`]s and are never printed.

mod file;
mod parts;

pub use file::with_file;
pub use parts::{
    AcceleratorChoice, AuthConfig, CloneMode, DatabaseConfig, Dialect, HttpConfig, HypervisorChoice, HypervisorConfig,
    LimitsConfig, LogConfig, NetworkChoice, NetworkConfig, RateLimitsConfig, SnapshotsConfig, StorageConfig,
    WebhooksConfig,
};

use std::path::PathBuf;

use secrecy::ExposeSecret;
use thiserror::Error;

/// Bytes of a block of VMs' filesystems.
const DISK_BLOCK_BYTES: u64 = 4096;

/// Why the configuration cannot be used: one line that names the setting.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything that an operator can set. Flatten it into a command line, then call [`Config::validated`].
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// A TOML file with any of these settings; a flag or an environment variable wins over it
    #[arg(long, env = "RDS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it; a text here would become the help of every flag in it")]
    pub http: HttpConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub auth: AuthConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub storage: StorageConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub database: DatabaseConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub hypervisor: HypervisorConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub snapshots: SnapshotsConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub network: NetworkConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub webhooks: WebhooksConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub limits: LimitsConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub rate_limits: RateLimitsConfig,
    #[command(flatten)]
    #[expect(missing_docs, reason = "as above")]
    pub log: LogConfig,
}

impl Config {
    /// Checks what one setting alone cannot show.
    pub fn validated(mut self) -> Result<Self, ConfigError> {
        let refuse = |text: &str| Err(ConfigError(text.into()));
        // A filesystem has whole blocks.
        self.storage.overlay_size_bytes = self.storage.overlay_size_bytes.next_multiple_of(DISK_BLOCK_BYTES);
        match (&self.auth.admin_email, &self.auth.admin_password) {
            (Some(_), None) => return refuse("ADMIN_EMAIL is set but ADMIN_PASSWORD is not: set both or neither"),
            (None, Some(_)) => return refuse("ADMIN_PASSWORD is set but ADMIN_EMAIL is not: set both or neither"),
            _ => {}
        }
        if let Some(key) = &self.auth.api_key
            && key.expose_secret().chars().any(|c| !c.is_ascii_graphic())
        {
            return refuse("API_KEY may hold only visible ASCII characters, for it travels in an HTTP header");
        }
        if !self.storage.storage_root.is_absolute() {
            return refuse("STORAGE_ROOT must be an absolute path");
        }
        match (self.database.db_dialect, &self.database.database_url) {
            (Dialect::Postgres, None) => return refuse("DB_DIALECT is postgres but DATABASE_URL is not set"),
            (Dialect::Postgres, Some(url)) if !is_postgres_url(url.expose_secret()) => {
                return refuse("DATABASE_URL must begin with postgres:// or postgresql://");
            }
            _ => {}
        }
        for (name, file) in self.storage.given_files() {
            if !file.is_file() {
                return Err(ConfigError(format!("{name} names {}, which is not a file", file.display())));
            }
        }
        match (&self.storage.kernel_path, &self.storage.base_rootfs_path) {
            (Some(_), None) => return refuse("KERNEL_PATH is set but BASE_ROOTFS_PATH is not: set both or neither"),
            (None, Some(_)) => return refuse("BASE_ROOTFS_PATH is set but KERNEL_PATH is not: set both or neither"),
            (None, None) if self.storage.modules_path.is_some() => {
                return refuse("MODULES_PATH belongs to KERNEL_PATH, which is not set");
            }
            _ => {}
        }
        Ok(self)
    }
}

fn is_postgres_url(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

#[cfg(test)]
mod tests;
