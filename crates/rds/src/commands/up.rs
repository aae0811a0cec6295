//! `rds up`: from a machine with the packages installed to a server that runs code, in one command.

use clap::Args;
use rds_manager::Config;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::image;
use super::serve::Server;
use super::telemetry::Telemetry;
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::settings::{self, ADMIN_EMAIL, ADMIN_PASSWORD_FILE, API_KEY_FILE, VM_SECRET_KEY_FILE};
use crate::{output, progress};

/// The server's settings; what is not set is made and kept in the storage root.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    config: Config,
    /// Log as JSON, one object a line
    #[arg(long, env = "LOG_JSON")]
    log_json: bool,
}

impl Up {
    /// Prepares, says how to use the server, and serves until a signal ends it.
    pub(crate) async fn run(mut self, shared: &Shared) -> Result<u8, CliError> {
        // Its log is for those who ask for it.
        let telemetry = Telemetry::start("off", self.log_json)?;
        let key = keep_secrets(&mut self.config)?;
        let has_image = self.config.storage.kernel_path.is_some();
        let build_dir = self.config.storage.tmp_dir();
        let server = progress::step("start the manager", Server::start(self.config)).await?;
        let url = server.url();
        let client = Client::new(&url, Some(key.clone()))?;
        let serving = tokio::spawn(server.run());
        if !has_image && let Err(error) = default_image(&client, &build_dir).await {
            serving.abort();
            return Err(error);
        }
        announce(&url, &key, shared.json);
        serving.await.map_err(|error| CliError::Failed(error.to_string()))??;
        telemetry.close().await;
        Ok(0)
    }
}

/// Fills in the keys and the password that nobody set, and gives the API key.
fn keep_secrets(config: &mut Config) -> Result<String, CliError> {
    let root = &config.storage.storage_root;
    std::fs::create_dir_all(root).map_err(CliError::file(root))?;
    if config.auth.admin_email.is_none() && config.auth.admin_password.is_none() {
        let password = settings::secret_file(&root.join(ADMIN_PASSWORD_FILE), settings::new_password)?;
        config.auth.admin_email = Some(ADMIN_EMAIL.to_owned());
        config.auth.admin_password = Some(SecretString::from(password));
    }
    if config.auth.vm_secret_key.is_none() {
        let key = settings::secret_file(&root.join(VM_SECRET_KEY_FILE), settings::new_vm_secret_key)?;
        config.auth.vm_secret_key = Some(SecretString::from(key));
    }
    if let Some(key) = &config.auth.api_key {
        return Ok(key.expose_secret().to_owned());
    }
    let key = settings::secret_file(&root.join(API_KEY_FILE), settings::new_api_key)?;
    config.auth.api_key = Some(SecretString::from(key.clone()));
    Ok(key)
}

/// Builds the default image if the server has none.
async fn default_image(client: &Client, build_dir: &std::path::Path) -> Result<(), CliError> {
    if client.images().await?.iter().any(|image| image.is_default) {
        return Ok(());
    }
    eprintln!("There is no guest image yet; building the Debian one takes some minutes, once.");
    let id = image::build_debian(client, build_dir, "debian").await?;
    image::set_default(client, &id).await
}

fn announce(url: &str, key: &str, json: bool) {
    if json {
        output::json(&json!({"url": url, "apiKey": key, "swagger": format!("{url}/swagger")}));
        return;
    }
    output::line(&format!(
        "\n\
         address   {url}\n\
         API key   {key}\n\
         swagger   {url}/swagger\n\
         sign in   {ADMIN_EMAIL}, unless ADMIN_EMAIL names another; the password is in {ADMIN_PASSWORD_FILE} in the storage root\n\
         \n\
         Try it:\n\
         \n  curl -s {url}/v1/vms -H 'x-api-key: {key}' -H 'content-type: application/json' \\\n    \
         -d '{{\"cpu\":1,\"memMb\":512,\"allowIps\":[]}}'\n\
         \n\
         or `rds demo` in another terminal. Ctrl-C stops the server; VMs go on and are found again."
    ));
}
