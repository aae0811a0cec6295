//! `rds peers`: what a consumer is linked to, and the calls that wait for a person.

use std::path::PathBuf;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::secret_source::read_text;
use crate::api::{PeerLink, PendingCall};
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{output, progress};

/// What to do with links. A VM is named by its id, the beginning of its id, or its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Peers {
    /// List a VM's links
    #[command(alias = "list")]
    Ls {
        /// The VM that calls
        vm: String,
    },
    /// Read the manifests of a VM's providers anew, and renew /workspace/peers
    Sync {
        /// The VM that calls
        vm: String,
    },
    /// Change a link; what is not named stays
    Set {
        /// The VM that calls
        vm: String,
        /// The provider's name in that VM
        alias: String,
        /// Whether the VM sees a copy of the provider's files, or nothing but proxies
        #[arg(long, value_parser = ["hidden", "mounted"], value_name = "MODE", required_unless_present = "policy")]
        source_mode: Option<String>,
        /// File with the link's whole new policy as JSON, or - for standard input; {} allows all that the manifest declares
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Take a link away
    Rm {
        /// The VM that calls
        vm: String,
        /// The provider's name in that VM
        alias: String,
    },
    /// List calls that wait for approval; approve or deny them
    Approvals {
        /// What to do with one; without it, they are listed
        #[command(subcommand)]
        decision: Option<Decision>,
    },
}

/// What a person says to a call.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Decision {
    /// Let the call go on
    Approve {
        /// The call's id
        id: String,
    },
    /// Refuse the call
    Deny {
        /// The call's id
        id: String,
    },
}

impl Peers {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let (client, json) = (shared.client()?, shared.json);
        match self {
            Self::Ls { vm } => list(&client, &vm, json).await?,
            Self::Sync { vm } => {
                let id = client.find_vm(&vm).await?;
                let sync = client.request(Method::POST, &["v1", "vms", &id, "peers", "sync"]);
                progress::step("sync its peers", client.send(sync)).await?;
                tell("synced", id, json);
            }
            Self::Set { vm, alias, source_mode, policy } => {
                let id = client.find_vm(&vm).await?;
                let change = change(source_mode, policy)?;
                let patch = client.request(Method::PATCH, &["v1", "vms", &id, "peers", &alias]).json(&change);
                progress::step("change the link", client.send(patch)).await?;
                tell("changed", id, json);
            }
            Self::Rm { vm, alias } => {
                let id = client.find_vm(&vm).await?;
                let unlink = client.request(Method::DELETE, &["v1", "vms", &id, "peers", &alias]);
                progress::step("take the link away", client.send(unlink)).await?;
                tell("changed", id, json);
            }
            Self::Approvals { decision: None } => waiting(&client, json).await?,
            Self::Approvals { decision: Some(decision) } => {
                let (verb, done, id) = match decision {
                    Decision::Approve { id } => ("approve", "approved", id),
                    Decision::Deny { id } => ("deny", "denied", id),
                };
                client.send(client.request(Method::POST, &["v1", "peers", "approvals", &id, verb])).await?;
                tell(done, id, json);
            }
        }
        Ok(0)
    }
}

fn tell(done: &str, id: String, json: bool) {
    if json {
        output::json(&Map::from_iter([(done.to_owned(), Value::String(id))]));
    } else {
        output::line(&id);
    }
}

fn change(source_mode: Option<String>, policy: Option<PathBuf>) -> Result<Value, CliError> {
    let mut change = json!({});
    if let Some(mode) = source_mode {
        change["sourceMode"] = mode.into();
    }
    if let Some(file) = policy {
        change["policy"] = read_policy(&file)?;
    }
    Ok(change)
}

/// A policy as it is in a file; the server says whether it makes sense.
pub(super) fn read_policy(file: &std::path::Path) -> Result<Value, CliError> {
    let no_json = |error| CliError::Usage(format!("{}: not JSON: {error}", file.display()));
    serde_json::from_str(&read_text(file)?).map_err(no_json)
}

async fn list(client: &Client, vm: &str, json: bool) -> Result<(), CliError> {
    let vm = client.vm(&client.find_vm(vm).await?).await?;
    if json {
        output::json(&vm.peer_links);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = vm.peer_links.iter().map(row).collect();
    output::line(&output::table(&["ALIAS", "PROVIDER", "SOURCE", "POLICY"], &rows));
    Ok(())
}

fn row(link: &PeerLink) -> Vec<String> {
    let policy = link.policy.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
    vec![link.alias.clone(), link.vm_id.clone(), link.source_mode.clone(), output::printable(&policy)]
}

async fn waiting(client: &Client, json: bool) -> Result<(), CliError> {
    let calls: Vec<PendingCall> = client.json(client.request(Method::GET, &["v1", "peers", "approvals"])).await?;
    if json {
        output::json(&calls);
    } else {
        calls.iter().for_each(|call| output::line(&shown(call)));
    }
    Ok(())
}

/// A call with all its arguments: what is cut away is what a person should have seen.
fn shown(call: &PendingCall) -> String {
    let PendingCall { id, requested_at, consumer, alias, provider, module, export, args } = call;
    let args: Vec<String> = args.iter().map(Value::to_string).collect();
    let made = output::printable(&format!("{module}#{export}({})", args.join(", ")));
    format!("{id}  since {requested_at}\n  {consumer} calls {alias}, which is {provider}\n  {made}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_call_is_shown_whole_and_harmless() {
        let call = serde_json::from_value(json!({
            "id": "i", "requestedAt": "t", "consumer": "c", "alias": "mail", "provider": "p", "module": "m.ts",
            "export": "send", "args": [{"to": "a\u{202e}b\u{9b}2J"}, 7],
        }));
        let text = shown(&call.unwrap());
        assert!(text.ends_with(r#"m.ts#send({"to":"a\u{202e}b\u{9b}2J"}, 7)"#), "{text}");
    }

    #[test]
    fn a_change_has_what_is_named_alone() {
        assert_eq!(change(Some("mounted".into()), None).unwrap(), json!({"sourceMode": "mounted"}));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, r#"{"deny": ["*#delete*"]}"#).unwrap();
        let policy = Some(file.path().to_owned());
        assert_eq!(change(None, policy).unwrap(), json!({"policy": {"deny": ["*#delete*"]}}));
        std::fs::write(&file, "deny").unwrap();
        assert_eq!(read_policy(file.path()).unwrap_err().exit_code(), 2);
    }
}
