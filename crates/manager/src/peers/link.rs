//! A consumer's links: what it calls its providers, and what it may do with them.

use std::collections::HashSet;

use rds_peers::codegen::SourceMode;
use rds_peers::manifest::Alias;
use rds_peers::policy::Policy;
use rds_vmm::VmId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// Links of one VM. Each costs a look at its provider when the VM starts.
const MAX_LINKS: usize = 32;

/// A link to a provider VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerLink {
    /// The provider's name in this VM: letters, digits, `_` and `-`.
    #[schema(example = "mail")]
    pub alias: String,
    /// The provider.
    pub vm_id: String,
    /// `hidden` (default): the consumer sees proxies. `mounted`: also a copy of the provider's files. A reply has it always.
    #[schema(value_type = String, required = false, example = "hidden")]
    pub source_mode: Option<String>,
    /// What the consumer may do with the provider; everything that its manifest declares, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
}

/// A link that obeys every rule that can be checked without looking at the provider.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub alias: Alias,
    pub provider: VmId,
    pub source_mode: SourceMode,
    pub policy: Policy,
    /// Whether a policy was given.
    has_policy: bool,
}

/// A change of a link; what is absent stays.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchLink {
    /// `hidden` or `mounted`.
    #[schema(example = "mounted")]
    source_mode: Option<String>,
    /// The whole new policy; `{}` allows everything that the manifest declares.
    policy: Option<Value>,
}

impl PatchLink {
    /// Whether what the consumer sees of its peer is asked for.
    pub(crate) fn names_a_mode(&self) -> bool {
        self.source_mode.is_some()
    }
}

impl Link {
    /// Checks the links of a request.
    pub(crate) fn parse_all(links: &[PeerLink]) -> Result<Vec<Self>> {
        if links.len() > MAX_LINKS {
            return Err(Error::Invalid(format!("peerLinks: at most {MAX_LINKS}")));
        }
        let links: Vec<Self> = links.iter().map(Self::parse).collect::<Result<_>>()?;
        let mut seen = HashSet::new();
        match links.iter().find(|link| !seen.insert(&link.alias)) {
            Some(twice) => Err(Error::Invalid(format!("peerLinks: the alias {} is there twice", twice.alias))),
            None => Ok(links),
        }
    }

    fn parse(link: &PeerLink) -> Result<Self> {
        let alias = Alias::new(&link.alias).map_err(|error| Error::Invalid(format!("peerLinks: the alias {error}")))?;
        let provider = link.vm_id.parse();
        let provider = provider.map_err(|_| Error::Invalid(format!("Peer alias {alias}: vmId is no VM's id")))?;
        let mut parsed = Self {
            source_mode: link
                .source_mode
                .as_deref()
                .map_or(Ok(SourceMode::Hidden), |mode| source_mode(&alias, mode))?,
            alias,
            provider,
            policy: Policy::default(),
            has_policy: false,
        };
        if let Some(policy) = &link.policy {
            parsed.set_policy(policy)?;
        }
        Ok(parsed)
    }

    /// The link after a change.
    pub(crate) fn patched(mut self, patch: &PatchLink) -> Result<Self> {
        if patch.source_mode.is_none() && patch.policy.is_none() {
            return Err(Error::invalid("sourceMode or policy is needed"));
        }
        if let Some(mode) = &patch.source_mode {
            self.source_mode = source_mode(&self.alias, mode)?;
        }
        if let Some(policy) = &patch.policy {
            self.set_policy(policy)?;
        }
        Ok(self)
    }

    fn set_policy(&mut self, policy: &Value) -> Result<()> {
        let parsed = Policy::parse(policy);
        self.policy = parsed.map_err(|error| Error::Invalid(format!("Peer alias {}: {error}", self.alias)))?;
        self.has_policy = true;
        Ok(())
    }

    /// The link for a client, and for the database.
    pub(crate) fn view(&self) -> PeerLink {
        PeerLink {
            alias: self.alias.to_string(),
            vm_id: self.provider.to_string(),
            source_mode: Some(
                match self.source_mode {
                    SourceMode::Hidden => "hidden",
                    SourceMode::Mounted => "mounted",
                }
                .into(),
            ),
            policy: self.has_policy.then(|| serde_json::to_value(&self.policy).unwrap_or_default()),
        }
    }
}

fn source_mode(alias: &Alias, text: &str) -> Result<SourceMode> {
    match text {
        "hidden" => Ok(SourceMode::Hidden),
        "mounted" => Ok(SourceMode::Mounted),
        _ => Err(Error::Invalid(format!("Peer alias {alias}: sourceMode must be hidden or mounted"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e";

    fn parse(links: &Value) -> Result<Vec<Link>> {
        Link::parse_all(&serde_json::from_value::<Vec<_>>(links.clone()).unwrap())
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let links = parse(&json!([
            {"alias": "mail", "vmId": ID},
            {"alias": "b-2_C", "vmId": ID, "sourceMode": "mounted", "policy": {"deny": ["*#delete*"], "maxSeconds": 5}},
        ]))
        .unwrap();
        let written = json!(links.iter().map(Link::view).collect::<Vec<_>>());
        assert_eq!(written[0], json!({"alias": "mail", "vmId": ID, "sourceMode": "hidden"}));
        assert_eq!(parse(&written).unwrap(), links);
    }

    #[test]
    fn bad_links_are_refused() {
        for links in [
            json!([{"alias": "", "vmId": ID}]),
            json!([{"alias": "a/b", "vmId": ID}]),
            json!([{"alias": "..", "vmId": ID}]),
            json!([{"alias": "a", "vmId": "x"}]),
            json!([{"alias": "a", "vmId": ID, "sourceMode": "open"}]),
            json!([{"alias": "a", "vmId": ID, "policy": {"alow": []}}]),
            json!([{"alias": "a", "vmId": ID}, {"alias": "a", "vmId": ID}]),
            json!(vec![json!({"alias": "a", "vmId": ID}); MAX_LINKS + 1]),
        ] {
            assert!(matches!(parse(&links), Err(Error::Invalid(_))), "{links}");
        }
    }
}
