//! `rds secrets`: a VM's secrets, and the key that those of all VMs are sealed with.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rds_manager::{Config, secrets};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;

use super::secret_source::SecretSource;
use crate::cli::Shared;
use crate::error::{CliError, chain};
use crate::output;

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Replace all secrets of a VM without a restart; prints its id
    Set(Set),
    /// Seal all VMs' secrets with VM_SECRET_KEY instead of VM_SECRET_KEY_OLD, while no server runs
    Rekey(Box<Rekey>),
}

/// Programs and calls that begin afterwards have the new ones; secrets that are not named again are gone.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The VM: its id, the beginning of its id, or its name
    vm: String,
    /// Take all secrets away
    #[arg(long, conflicts_with_all = ["variables", "files"])]
    none: bool,
    #[command(flatten)]
    source: SecretSource,
}

/// The variable with the old key. There is no flag for it: other users can see flags.
const OLD_KEY: &str = "VM_SECRET_KEY_OLD";

/// Works on the storage root and the database of a server that was stopped; VMs may go on running. Whatever goes wrong,
/// one of the two keys opens all secrets.
#[derive(Debug, Args)]
pub(crate) struct Rekey {
    /// File with the old key [default: what VM_SECRET_KEY_OLD holds]
    #[arg(long, env = "VM_SECRET_KEY_OLD_FILE", value_name = "FILE")]
    old_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: Config,
}

impl Secrets {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        match self {
            Self::Set(set) => set.run(shared).await?,
            Self::Rekey(rekey) => rekey.run(shared.json).await?,
        }
        Ok(0)
    }
}

impl Set {
    async fn run(self, shared: &Shared) -> Result<(), CliError> {
        if self.source.is_empty() && !self.none {
            let how = "name the new secrets with --secret or --secret-file, or take all away with --none";
            return Err(CliError::Usage(how.into()));
        }
        let body = json!({ "secretEnv": self.source.read()? });
        let client = shared.client()?;
        let id = client.find_vm(&self.vm).await?;
        client.send(client.request(Method::PUT, &["v1", "vms", &id, "secrets"]).json(&body)).await?;
        if shared.json {
            output::json(&json!({ "changed": id }));
        } else {
            output::line(&id);
        }
        Ok(())
    }
}

impl Rekey {
    async fn run(self, json: bool) -> Result<(), CliError> {
        let old = self.old_key()?;
        let done = secrets::rekey(&self.config, &old).await.map_err(|error| CliError::Failed(chain(&error)))?;
        if json {
            output::json(&json!({ "changed": done.changed, "already": done.already }));
        } else {
            output::line(&format!("sealed anew: {}; sealed with this key already: {}", done.changed, done.already));
        }
        Ok(())
    }

    fn old_key(&self) -> Result<SecretString, CliError> {
        let given = match &self.old_key_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(CliError::file(file))?;
                Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
            }
            None => std::env::var(OLD_KEY).ok(),
        };
        let missing = || CliError::Usage(format!("give the old key in {OLD_KEY} or with --old-key-file"));
        given.filter(|key| !key.is_empty()).map(SecretString::from).ok_or_else(missing)
    }
}
