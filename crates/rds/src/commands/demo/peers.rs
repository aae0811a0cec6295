//! The second part: code without network or credentials calls an SDK in another VM, which has them.

use reqwest::Method;
use serde_json::{Value, json};

use super::stage::{File, Stage};
use crate::api::{CreateVm, PeerLink};
use crate::commands::audit;
use crate::error::CliError;
use crate::{output, settings};

const PROVIDER: [File; 2] =
    [(".rds-peer/manifest.json", include_bytes!("manifest.json")), ("sdk/mail.ts", include_bytes!("mail.ts"))];

/// Shows it, and gives what the consumer's code saw and what the audit log says.
pub(super) async fn show(stage: &mut Stage) -> Result<Value, CliError> {
    let token = format!("demo-{}", settings::new_password());
    let secret_env = vec![format!("MAIL_TOKEN={token}")];
    let provider = stage.create("create a provider", CreateVm { secret_env, ..CreateVm::default() }).await?;
    stage.upload("upload its SDK and manifest", &provider, "/workspace", &PROVIDER).await?;

    let (alias, source_mode) = ("mail".to_owned(), "hidden".to_owned());
    let peer_links = vec![PeerLink { alias, vm_id: provider, source_mode, policy: None }];
    let consumer = stage.create("create a consumer", CreateVm { peer_links, ..CreateVm::default() }).await?;
    let program = json!({ "code": include_str!("consumer.ts") });
    let seen = stage.run("run code in the consumer", &consumer, "run-ts", program).await?;
    if seen.to_string().contains(&token) {
        return Err(CliError::Failed("the consumer has seen the provider's secret".into()));
    }

    let client = stage.client.clone();
    let log = client.request(Method::GET, &["v1", "audit"]).query(&[("consumer", &consumer)]);
    let log: Value = stage.step("read the audit log", client.json(log)).await?;
    Ok(json!({ "consumer": seen, "audit": log["entries"] }))
}

/// Prints it for a person.
pub(super) fn tell(shown: &Value) {
    let seen = |what: &str| output::printable(&shown["consumer"][what].to_string());
    output::line(&format!(
        "\n\
         A consumer without network or token called the mail SDK of a provider:\n\
         \x20 has it the token?         {}\n\
         \x20 what a call returns       {}\n\
         \x20 an error with the token   {}\n\
         \x20 an argument of no use     {}\n\
         \n\
         The audit log, newest first:\n{}\n",
        seen("hasToken"),
        seen("unread"),
        seen("thrown"),
        seen("refused"),
        audit::table(shown["audit"].as_array().map_or(&[][..], Vec::as_slice)),
    ));
}
