//! What a key is not enough for: the administrator signs in, and out again.

use clap::Args;
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use serde_json::json;

use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::settings;

/// Who signs in.
#[derive(Debug, Args)]
pub(crate) struct SignIn {
    /// The administrator
    #[arg(long, global = true, env = "ADMIN_EMAIL", default_value = settings::ADMIN_EMAIL)]
    email: String,
    /// The password; better set in the environment [default: the one that `rds up` keeps on this machine, if
    /// --url names this machine]
    #[arg(long, global = true, env = "ADMIN_PASSWORD", hide_env_values = true, value_name = "SECRET")]
    password: Option<SecretString>,
}

/// A client of somebody who signed in.
pub(crate) struct Session {
    pub(crate) client: Client,
    cookie: String,
}

impl SignIn {
    /// Signs in.
    pub(crate) async fn begin(&self, shared: &Shared) -> Result<Session, CliError> {
        let client = shared.client()?;
        let Some(password) = shared.secret(self.password.as_ref(), settings::ADMIN_PASSWORD_FILE) else {
            return Err(CliError::Usage("give the administrator's password in ADMIN_PASSWORD".into()));
        };
        let body = json!({"email": self.email, "password": password});
        let reply = client.send(client.request(Method::POST, &["auth", "login"]).json(&body)).await?;
        let cookie = reply.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
        let pair = cookie.and_then(|cookie| cookie.split(';').next());
        let cookie = pair.map(str::to_owned).ok_or_else(|| CliError::Answer("signed in, but no cookie came".into()))?;
        Ok(Session { client, cookie })
    }
}

impl Session {
    /// Begins a request.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.client.request(method, segments).header("cookie", &self.cookie)
    }

    /// Signs out. If that fails, the session ends by itself later.
    pub(crate) async fn end(self) {
        let _ = self.client.send(self.request(Method::POST, &["auth", "logout"])).await;
    }
}
