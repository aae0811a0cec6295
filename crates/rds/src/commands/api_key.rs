//! `rds api-key`: keys for the API. A key cannot make keys, so this signs in as the administrator.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::sign_in::{Session, SignIn};
use crate::cli::Shared;
use crate::error::CliError;
use crate::output;

/// Who signs in, and what to do.
#[derive(Debug, Args)]
pub(crate) struct ApiKey {
    #[command(flatten)]
    sign_in: SignIn,
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
        let session = self.sign_in.begin(shared).await?;
        let done = act(&session, self.action, shared.json).await;
        session.end().await;
        done.map(|()| 0)
    }
}

async fn act(session: &Session, action: Action, json: bool) -> Result<(), CliError> {
    let client = &session.client;
    match action {
        Action::Create { name, expires_at } => {
            let mut body = json!({"name": name});
            if let Some(at) = expires_at {
                body["expiresAt"] = json!(at);
            }
            let made: Value = client.json(session.request(Method::POST, &KEYS).json(&body)).await?;
            match made.get("apiKey").and_then(Value::as_str) {
                Some(key) if !json => output::line(key),
                _ => output::json(&made),
            }
        }
        Action::Ls => {
            let keys: Vec<Value> = client.json(session.request(Method::GET, &KEYS)).await?;
            list(&keys, json);
        }
        Action::Revoke { id } => {
            let [v1, admin, keys] = KEYS;
            client.send(session.request(Method::POST, &[v1, admin, keys, &id, "revoke"])).await?;
            if json {
                output::json(&json!({"id": id}));
            }
        }
    }
    Ok(())
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
