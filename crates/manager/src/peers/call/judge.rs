//! What a call is held to before its provider hears of it: the schemas of its arguments, and the link's policy.

use std::sync::Arc;

use rds_peers::manifest::{Export, Module, ModulePath};
use rds_peers::policy::{self, Decision, Refusal};
use rds_peers::schema::{ArgumentFault, ExportChecker};
use rds_vmm::VmId;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{CallFailure, WORDS, bounded};
use crate::peers::large;
use crate::peers::link::Link;
use crate::peers::provider::Contract;
use crate::peers::usage::{Counts, Running};

/// A call whose export is declared, if [`Self::target`] finds it.
pub(super) struct Judge {
    pub(super) consumer: VmId,
    pub(super) link: Link,
    pub(super) contract: Arc<Contract>,
    pub(super) module: ModulePath,
    pub(super) export: String,
    pub(super) args: Arc<RawValue>,
    pub(super) counts: Counts,
}

impl Judge {
    /// What is called, as the manifest declares it.
    pub(super) fn target(&self) -> Option<(&Module, &Export, &Arc<ExportChecker>)> {
        self.contract.export(self.module.as_str(), &self.export)
    }

    /// Lets the call pass, and counts it until what comes with the decision is dropped. The arguments are values here alone.
    pub(super) async fn decide(self: Arc<Self>) -> Result<(Running, Decision), CallFailure> {
        if large::is_long(self.args.get().len()) {
            return large::work(true, move || self.decide_on(&self.values()?)).await?;
        }
        let args = self.values()?;
        let long = self.target().is_some_and(|(_, _, checker)| checker.args_take_long(&args));
        large::work(long, move || self.decide_on(&args)).await?
    }

    fn values(&self) -> Result<Vec<Value>, CallFailure> {
        let args = serde_json::from_str(self.args.get());
        args.map_err(|error| CallFailure::refused(400, "invalid_request", error.to_string()))
    }

    fn decide_on(&self, args: &[Value]) -> Result<(Running, Decision), CallFailure> {
        let (module, export, checker) = self.target().ok_or_else(|| self.undeclared())?;
        checker.check_args(args).map_err(|faults| bad_arguments(&faults))?;
        let call =
            policy::Call { module: &module.path, export: &export.name, args, bytes: self.args.get().len() as u64 };
        let mut decision = Decision::Allow;
        let running = self.counts.admit(self.consumer, &self.link.alias, |usage| {
            decision = self.link.policy.decide(&call, usage);
            match &decision {
                Decision::Refuse(refusal) => Err(refused(refusal)),
                _ => Ok(()),
            }
        })?;
        Ok((running, decision))
    }

    /// The manifest has no such export.
    pub(super) fn undeclared(&self) -> CallFailure {
        undeclared(&self.link, self.module.as_str(), &self.export)
    }
}

pub(super) fn undeclared(link: &Link, module: &str, export: &str) -> CallFailure {
    let message = format!("Peer alias {}: {module}#{export} is not declared in the provider's manifest", link.alias);
    CallFailure::refused(403, "not_declared", message)
}

fn bad_arguments(faults: &[ArgumentFault]) -> CallFailure {
    let words: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    CallFailure::refused(400, "invalid_arguments", bounded(&words.join("; "), WORDS))
}

/// A refusal of the policy.
pub(super) fn refused(refusal: &Refusal) -> CallFailure {
    let mut failure = match refusal.retry_after {
        Some(wait) => CallFailure::over_limit(wait, &refusal.message),
        None => CallFailure::refused(403, "policy", &refusal.message),
    };
    failure.body.rule = Some(refusal.rule.clone());
    failure
}
