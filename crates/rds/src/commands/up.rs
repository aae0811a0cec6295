//! `rds up`: from a machine with the packages installed to a server that runs code, in one command.

use std::path::Path;

use clap::Args;
use rds_manager::Config;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::oneshot;

use super::image;
use super::serve::{Server, stop_signal};
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
    pub(crate) config: Config,
}

/// Name of the image that is made.
const IMAGE: &str = "debian";

impl Up {
    /// Prepares, says how to use the server, and serves until a signal ends it.
    pub(crate) async fn run(mut self, shared: &Shared) -> Result<u8, CliError> {
        // Its log is for those who ask for it.
        let telemetry = Telemetry::start("off", self.config.log.log_json)?;
        let kept = keep_secrets(&mut self.config)?;
        let has_image = self.config.storage.kernel_path.is_some();
        let build_dir = self.config.storage.tmp_dir();
        let server = progress::step("start the manager", Server::start(self.config)).await?;
        let url = server.url();
        let client = Client::new(&url, Some(kept.key.clone()))?;
        // A signal that breaks off the build ends the server after it: what was uploaded so far has to be removed.
        let stop = stop_signal()?;
        let (ready, wait) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async move {
            if wait.await.is_ok() {
                stop.await;
            }
        }));
        let image = if has_image { Ok(()) } else { default_image(&client, &build_dir).await };
        if image.is_ok() {
            announce(&url, &kept, shared.json);
            let _ = ready.send(()); // a server that has ended says why below
        } else {
            drop(ready);
        }
        let served = serving.await.map_err(|error| CliError::Failed(error.to_string()));
        image?;
        served??;
        telemetry.close().await;
        Ok(0)
    }
}

/// How to use the server.
struct Kept {
    /// The API key.
    key: String,
    /// Who signs in, and with what.
    sign_in: String,
}

/// Fills in the keys and the password that nobody set.
fn keep_secrets(config: &mut Config) -> Result<Kept, CliError> {
    let root = &config.storage.storage_root;
    std::fs::create_dir_all(root).map_err(CliError::file(root))?;
    let sign_in = match &config.auth.admin_email {
        Some(email) => format!("{email}, with ADMIN_PASSWORD"),
        None => {
            let file = root.join(ADMIN_PASSWORD_FILE);
            let password = settings::secret_file(&file, settings::new_password)?;
            config.auth.admin_email = Some(ADMIN_EMAIL.to_owned());
            config.auth.admin_password = Some(SecretString::from(password));
            format!("{ADMIN_EMAIL}; the password is in {}", file.display())
        }
    };
    if config.auth.vm_secret_key.is_none() {
        let key = settings::secret_file(&root.join(VM_SECRET_KEY_FILE), settings::new_vm_secret_key)?;
        config.auth.vm_secret_key = Some(SecretString::from(key));
    }
    let key = match &config.auth.api_key {
        Some(key) => key.expose_secret().to_owned(),
        None => settings::secret_file(&root.join(API_KEY_FILE), settings::new_api_key)?,
    };
    config.auth.api_key = Some(SecretString::from(key.clone()));
    Ok(Kept { key, sign_in })
}

/// Builds the default image if the server has none. A run before this one may have ended in the middle: an image of that
/// name that it completed is taken, what it did not complete is removed.
async fn default_image(client: &Client, build_dir: &Path) -> Result<(), CliError> {
    let images = client.images().await?;
    if images.iter().any(|image| image.is_default) {
        return Ok(());
    }
    let (complete, incomplete): (Vec<_>, Vec<_>) =
        images.iter().filter(|image| image.name == IMAGE).partition(|image| image.is_complete());
    if let Some(image) = complete.first() {
        return image::set_default(client, &image.id).await;
    }
    for image in incomplete {
        image::delete(client, &image.id).await?;
    }
    output::note("There is no guest image yet; building the Debian one takes some minutes, once.");
    let id = image::build_debian(client, build_dir, IMAGE).await?;
    image::set_default(client, &id).await
}

fn announce(url: &str, kept: &Kept, json: bool) {
    let Kept { key, sign_in } = kept;
    if json {
        output::json(&json!({"url": url, "apiKey": key, "swagger": format!("{url}/swagger")}));
        return;
    }
    output::line(&format!(
        "\n\
         address   {url}\n\
         API key   {key}\n\
         swagger   {url}/swagger\n\
         sign in   {sign_in}\n\
         \n\
         Try it:\n\
         \n  curl -s {url}/v1/vms -H 'x-api-key: {key}' -H 'content-type: application/json' \\\n    \
         -d '{{\"cpu\":1,\"memMb\":512,\"allowIps\":[]}}'\n\
         \n\
         or `rds demo` in another terminal. Ctrl-C stops the server; VMs go on and are found again."
    ));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn an_image_that_an_earlier_run_completed_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let asked = std::thread::spawn(move || {
            let whole =
                r#"{"id":"img-1","name":"debian","createdAt":"t","kernelUploadedAt":"t","rootfsUploadedAt":"t"}"#;
            let list = format!(r#"[{{"id":"img-0","name":"debian","createdAt":"t"}},{whole}]"#);
            let answer = |body: &str| {
                let (mut socket, _) = listener.accept().unwrap();
                let mut head = vec![0; 4096];
                let count = socket.read(&mut head).unwrap();
                let length = body.len();
                write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                    .unwrap();
                String::from_utf8_lossy(&head[..count]).lines().next().unwrap().to_owned()
            };
            [answer(&list), answer("")]
        });
        default_image(&client, Path::new("/nowhere")).await.unwrap();
        let asked = asked.join().unwrap();
        assert_eq!(asked, ["GET /v1/images HTTP/1.1", "POST /v1/images/img-1/set-default HTTP/1.1"]);
    }
}
