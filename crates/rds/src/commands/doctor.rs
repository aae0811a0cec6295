//! `rds doctor`: whether this machine can run VMs, how it will, and what to do where it cannot.

use clap::Args;
use rds_manager::Config;
use rds_manager::egress::Egress;
use rds_manager::hypervisor::{self, MonitorUsers};
use rds_vmm::doctor::{Check, Report, Subject, Verdict, examine};

use crate::cli::Shared;
use crate::error::CliError;
use crate::output;

/// The server's settings, as `rds up` would have them.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) config: Config,
}

impl Doctor {
    /// Looks and tells; the exit code is 1 if no VM can run.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let subject = Subject {
            candidates: hypervisor::candidates(&self.config),
            storage: self.config.storage.storage_root.clone(),
            agent: self.config.storage.agent_path(),
            users: MonitorUsers::of(&self.config.hypervisor).all(),
        };
        let mut report = examine(subject).await;
        report.checks.push(network(&self.config).await);
        if shared.json {
            output::json(&report);
        } else {
            show(&report);
        }
        Ok(u8::from(!report.is_usable()))
    }
}

/// Whether VMs will have a network. Changes nothing.
async fn network(config: &Config) -> Check {
    let fix = "until then VMs run without a network card, and outboundInternet is refused";
    match Egress::start(&config.network, MonitorUsers::of(&config.hypervisor))
        .await
        .map(|egress| egress.missing().map(str::to_owned))
    {
        Ok(None) => Check {
            name: "network",
            verdict: Verdict::Ok,
            found: format!("VMs get addresses of {}", config.network.vm_subnet),
            how_to_fix: None,
        },
        Ok(Some(why)) => Check { name: "network", verdict: Verdict::Warn, found: why, how_to_fix: Some(fix.into()) },
        Err(error) => Check { name: "network", verdict: Verdict::Fail, found: error.to_string(), how_to_fix: None },
    }
}

fn show(report: &Report) {
    report.checks.iter().for_each(show_check);
    output::line("");
    match &report.hypervisor {
        Some(driver) => output::line(&format!(
            "VMs will run in {} {} with the accelerator {}: {}",
            driver.name, driver.version, driver.accelerator, driver.reason
        )),
        None => output::line("No VM can run on this machine yet."),
    }
}

fn show_check(check: &Check) {
    let mark = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    output::line(&format!("{mark}  {}: {}", check.name, check.found));
    if let Some(fix) = &check.how_to_fix {
        output::line(&format!("      → {fix}"));
    }
}
