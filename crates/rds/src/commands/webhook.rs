//! `rds webhook`: where events are sent. A key cannot make webhooks, so this signs in as the administrator.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::sign_in::{Session, SignIn};
use crate::cli::Shared;
use crate::error::CliError;
use crate::output;

/// Who signs in, and what to do.
#[derive(Debug, Args)]
pub(crate) struct Webhook {
    #[command(flatten)]
    sign_in: SignIn,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have events sent to a URL; prints the secret that they are signed with, this once
    Add {
        /// An http or https URL
        to: String,
        /// A kind of event, such as vm.created, vm.* or *; give it once for each
        #[arg(long = "event", required = true, value_name = "KIND")]
        events: Vec<String>,
        /// What it is for [default: the URL's host]
        #[arg(long)]
        name: Option<String>,
    },
    /// List webhooks
    #[command(alias = "list")]
    Ls,
    /// Send events again
    Enable {
        /// Its id
        id: String,
    },
    /// Send no events; none are kept meanwhile
    Disable {
        /// Its id
        id: String,
    },
    /// Have another secret made; prints it, this once
    Rotate {
        /// Its id
        id: String,
    },
    /// Send an event for a test; prints the id of its delivery
    Test {
        /// Its id
        id: String,
    },
    /// What was sent lately, newest first
    Log {
        /// Its id
        id: String,
        /// How many deliveries, at most 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Remove a webhook, with all that waits for it
    #[command(alias = "delete")]
    Rm {
        /// Its id
        id: String,
    },
}

const HOOKS: [&str; 3] = ["v1", "admin", "webhooks"];

impl Webhook {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let session = self.sign_in.begin(shared).await?;
        let done = act(&session, self.action, shared.json).await;
        session.end().await;
        done.map(|()| 0)
    }
}

async fn act(session: &Session, action: Action, json: bool) -> Result<(), CliError> {
    let [v1, admin, hooks] = HOOKS;
    let client = &session.client;
    match action {
        Action::Add { to, events, name } => {
            let body = json!({"url": to, "eventTypes": events, "name": name});
            let made: Value = client.json(session.request(Method::POST, &HOOKS).json(&body)).await?;
            show(&made, "secret", json);
        }
        Action::Ls => {
            let all: Vec<Value> = client.json(session.request(Method::GET, &HOOKS)).await?;
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("URL", "url"),
                ("ENABLED", "enabled"),
                ("EVENTS", "eventTypes"),
                ("CREATED", "createdAt"),
            ];
            table(&all, &columns, json);
        }
        Action::Enable { id } => change(session, &id, json!({"enabled": true}), json).await?,
        Action::Disable { id } => change(session, &id, json!({"enabled": false}), json).await?,
        Action::Rotate { id } => change(session, &id, json!({"rotateSecret": true}), json).await?,
        Action::Test { id } => {
            let request = session.request(Method::POST, &[v1, admin, hooks, &id, "test"]);
            show(&client.json(request).await?, "id", json);
        }
        Action::Log { id, limit } => {
            let request = session.request(Method::GET, &[v1, admin, hooks, &id, "deliveries"]);
            let all: Vec<Value> = client.json(request.query(&[("limit", limit)])).await?;
            let columns = [
                ("TIME", "createdAt"),
                ("EVENT", "event"),
                ("STATE", "state"),
                ("ATTEMPTS", "attempts"),
                ("STATUS", "status"),
                ("MS", "durationMs"),
                ("ERROR", "error"),
            ];
            table(&all, &columns, json);
        }
        Action::Rm { id } => {
            client.send(session.request(Method::DELETE, &[v1, admin, hooks, &id])).await?;
            if json {
                output::json(&json!({"id": id}));
            }
        }
    }
    Ok(())
}

async fn change(session: &Session, id: &str, change: Value, json: bool) -> Result<(), CliError> {
    let [v1, admin, hooks] = HOOKS;
    let request = session.request(Method::PATCH, &[v1, admin, hooks, id]).json(&change);
    let changed: Value = session.client.json(request).await?;
    if json || changed.get("secret").is_some() {
        show(&changed, "secret", json);
    }
    Ok(())
}

/// One field of an answer, or all of it as JSON.
fn show(answer: &Value, field: &str, json: bool) {
    match answer.get(field).and_then(Value::as_str) {
        Some(text) if !json => output::line(&output::printable(text)),
        _ => output::json(answer),
    }
}

fn table(all: &[Value], columns: &[(&str, &str)], json: bool) {
    if json {
        output::json(&all);
        return;
    }
    let rows: Vec<Vec<String>> =
        all.iter().map(|one| columns.iter().map(|(_, field)| cell(one.get(*field))).collect()).collect();
    let heading: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
    output::line(&output::table(&heading, &rows));
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => output::printable(text),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => output::printable(&other.to_string()),
    }
}
