//! `rds api-key`: keys for the API. A key cannot make keys, so this signs in as the administrator.

use clap::{Args, Subcommand};
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{output, settings};

/// Who signs in, and what to do.
#[derive(Debug, Args)]
pub(crate) struct ApiKey {
    /// The administrator
    #[arg(long, global = true, env = "ADMIN_EMAIL", default_value = settings::ADMIN_EMAIL)]
    email: String,
    /// The password; better set in the environment [default: the one that `rds up` keeps on this machine, if
    /// --url names this machine]
    #[arg(long, global = true, env = "ADMIN_PASSWORD", hide_env_values = true, value_name = "SECRET")]
    password: Option<SecretString>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key; it is shown this once
    Create {
        /// What it is for
        name: String,
        /// When it ends (RFC 3339)
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List keys
    #[command(alias = "list")]
    Ls,
    /// Make a key useless
    Revoke {
        /// Its id
        id: String,
    },
}

const KEYS: [&str; 3] = ["v1", "admin", "api-keys"];

impl ApiKey {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        let cookie = self.sign_in(shared, &client).await?;
        let with_cookie = |request: RequestBuilder| request.header("cookie", &cookie);
        match self.action {
            Action::Create { name, expires_at } => {
                let mut body = json!({"name": name});
                if let Some(at) = expires_at {
                    body["expiresAt"] = json!(at);
                }
                let made: Value = client.json(with_cookie(client.request(Method::POST, &KEYS)).json(&body)).await?;
                match made.get("apiKey").and_then(Value::as_str) {
                    Some(key) if !shared.json => output::line(key),
                    _ => output::json(&made),
                }
            }
            Action::Ls => {
                let keys: Vec<Value> = client.json(with_cookie(client.request(Method::GET, &KEYS))).await?;
                list(&keys, shared.json);
            }
            Action::Revoke { id } => {
                let [v1, admin, keys] = KEYS;
                let request = client.request(Method::POST, &[v1, admin, keys, &id, "revoke"]);
                client.send(with_cookie(request)).await?;
                if shared.json {
                    output::json(&json!({"id": id}));
                }
            }
        }
        let _ = client.send(with_cookie(client.request(Method::POST, &["auth", "logout"]))).await;
        Ok(0)
    }

    /// The cookie of a new session.
    async fn sign_in(&self, shared: &Shared, client: &Client) -> Result<String, CliError> {
        let Some(password) = shared.secret(self.password.as_ref(), settings::ADMIN_PASSWORD_FILE) else {
            return Err(CliError::Usage("give the administrator's password in ADMIN_PASSWORD".into()));
        };
        let body = json!({"email": self.email, "password": password});
        let reply = client.send(client.request(Method::POST, &["auth", "login"]).json(&body)).await?;
        let cookie = reply.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
        let pair = cookie.and_then(|cookie| cookie.split(';').next());
        pair.map(str::to_owned).ok_or_else(|| CliError::Answer("signed in, but no cookie came".into()))
    }
}

fn list(keys: &[Value], json: bool) {
    if json {
        output::json(&keys);
        return;
    }
    let fields = ["id", "name", "prefix", "createdAt", "expiresAt", "revokedAt", "lastUsedAt"];
    let cell =
        |key: &Value, field| key.get(field).and_then(Value::as_str).map_or_else(|| "-".into(), output::printable);
    let rows: Vec<Vec<String>> = keys.iter().map(|key| fields.map(|field| cell(key, field)).to_vec()).collect();
    let heading = ["ID", "NAME", "PREFIX", "CREATED", "EXPIRES", "REVOKED", "LAST USED"];
    output::line(&output::table(&heading, &rows));
}
