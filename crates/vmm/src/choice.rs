//! Which monitor runs the machines of this host: Firecracker where everything that it needs is there, QEMU elsewhere.

use std::sync::Arc;

use crate::accelerator::AcceleratorWish;
use crate::firecracker::{self, Firecracker};
use crate::qemu::{self, Qemu};
use crate::{Hypervisor, HypervisorError};

/// Which monitor the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MonitorWish {
    /// The best one that works here.
    #[default]
    Auto,
    /// Firecracker, or none.
    Firecracker,
    /// QEMU, or none.
    Qemu,
}

/// How the monitors would be made.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// Which of them is wanted.
    pub wish: MonitorWish,
    /// QEMU.
    pub qemu: qemu::Settings,
    /// Firecracker; `Err` says why it is not to be had.
    pub firecracker: Result<firecracker::Settings, String>,
}

/// The outcome.
#[derive(Debug)]
pub struct Choice {
    /// The monitor.
    pub hypervisor: Result<Arc<dyn Hypervisor>, HypervisorError>,
    /// Why it is not Firecracker, if it is not and was not told not to be.
    pub not_firecracker: Option<String>,
    /// Why it is not known that KVM runs guests, if it is Firecracker nevertheless.
    pub not_proved: Option<String>,
}

impl Candidates {
    /// Chooses, trying out what must be tried: KVM, which takes at most two seconds once for each boot of the host.
    pub async fn choose(self) -> Choice {
        match self.wish {
            MonitorWish::Qemu => {
                Choice { hypervisor: qemu(self.qemu).await.map(shared), not_firecracker: None, not_proved: None }
            }
            MonitorWish::Firecracker => {
                let missing = |why: String| HypervisorError::Spawn {
                    program: firecracker::PROGRAM.into(),
                    source: std::io::Error::other(why),
                };
                let hypervisor = match self.firecracker.map_err(missing) {
                    Ok(settings) => Firecracker::new(settings).await.map(|driver| Arc::new(driver) as _),
                    Err(error) => Err(error),
                };
                let not_proved = hypervisor.is_ok().then(|| "Firecracker was asked for, and no guest tried".into());
                Choice { hypervisor, not_firecracker: None, not_proved }
            }
            MonitorWish::Auto => self.best().await,
        }
    }

    async fn best(self) -> Choice {
        let wish = self.qemu.accelerator;
        let qemu = qemu(self.qemu).await;
        match firecracker_if_it_works(self.firecracker, &qemu).await {
            Ok(driver) => {
                let not_proved = untried(wish, qemu.as_ref().err());
                Choice { hypervisor: Ok(Arc::new(driver)), not_firecracker: None, not_proved }
            }
            Err(why) => Choice { hypervisor: qemu.map(shared), not_firecracker: Some(why), not_proved: None },
        }
    }
}

/// Firecracker, unless KVM was found not to work: QEMU has tried it, if it is there.
async fn firecracker_if_it_works(
    settings: Result<firecracker::Settings, String>,
    qemu: &Result<Qemu, HypervisorError>,
) -> Result<Firecracker, String> {
    let settings = settings?;
    if let Ok(qemu) = qemu
        && qemu.description().accelerator != "kvm"
    {
        return Err(format!("it needs KVM: {}", qemu.description().reason));
    }
    Firecracker::new(settings).await.map_err(|error| error.to_string())
}

/// Why no guest was tried under KVM, which QEMU does where it has to choose an accelerator.
fn untried(wish: AcceleratorWish, no_qemu: Option<&HypervisorError>) -> Option<String> {
    match (no_qemu, wish) {
        (Some(error), _) => Some(format!("no guest was tried, which takes QEMU: {error}")),
        (None, AcceleratorWish::Exactly(_)) => Some("KVM was asked for, and no guest tried".into()),
        (None, AcceleratorWish::Auto) => None,
    }
}

async fn qemu(settings: qemu::Settings) -> Result<Qemu, HypervisorError> {
    Qemu::new(settings).await
}

fn shared(qemu: Qemu) -> Arc<dyn Hypervisor> {
    Arc::new(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Accelerator;

    #[test]
    fn what_was_not_tried_is_not_proved() {
        let exactly = AcceleratorWish::Exactly(Accelerator::Kvm);
        assert_eq!(untried(AcceleratorWish::Auto, None), None);
        assert_eq!(untried(exactly, None).as_deref(), Some("KVM was asked for, and no guest tried"));
        let why = untried(AcceleratorWish::Auto, Some(&HypervisorError::NotRunning)).unwrap();
        assert!(why.starts_with("no guest was tried, which takes QEMU: "), "{why}");
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let candidates = |wish| Candidates {
            wish,
            qemu: qemu::Settings { program: Some("/nonexistent".into()), ..qemu::Settings::default() },
            firecracker: Err("firecracker is not installed".into()),
        };
        let choice = candidates(MonitorWish::Auto).choose().await;
        assert!(choice.hypervisor.is_err());
        assert_eq!(choice.not_firecracker.as_deref(), Some("firecracker is not installed"));
        assert_eq!(choice.not_proved, None);
        let choice = candidates(MonitorWish::Firecracker).choose().await;
        assert_eq!(
            choice.hypervisor.unwrap_err().to_string(),
            "cannot start firecracker: firecracker is not installed"
        );
    }
}
