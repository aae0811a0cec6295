//! What executes a guest's instructions: the processor, or an emulation of one.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's emulation: works anywhere, ten to twenty times slower.
    Tcg,
}

impl Accelerator {
    /// `kvm` or `tcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which accelerator the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// KVM where it has run guest code, emulation elsewhere.
    #[default]
    Auto,
    /// This one, tried or not.
    Exactly(Accelerator),
}

/// Text that names no accelerator.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an accelerator is one of auto, kvm, tcg")]
pub struct InvalidWish;

impl FromStr for Wish {
    type Err = InvalidWish;

    fn from_str(text: &str) -> Result<Self, InvalidWish> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Exactly(Accelerator::Kvm)),
            "tcg" => Ok(Self::Exactly(Accelerator::Tcg)),
            _ => Err(InvalidWish),
        }
    }
}

/// An accelerator and, for people, why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why.
    pub reason: String,
}

impl Choice {
    /// What follows from the operator's wish and what KVM was found to be: `Err` says why it cannot be used.
    pub(crate) fn new(wish: Wish, kvm: impl FnOnce() -> Result<(), String>) -> Self {
        let (accelerator, reason) = match wish {
            Wish::Exactly(accelerator) => (accelerator, "it was asked for".into()),
            Wish::Auto => match kvm() {
                Ok(()) => (Accelerator::Kvm, "guest code ran under KVM".into()),
                Err(why) => (Accelerator::Tcg, why),
            },
        };
        Self { accelerator, reason }
    }
}

/// What the host's processors are and can do, as a guest under KVM sees it.
pub(crate) fn processor() -> String {
    const FIELDS: [&str; 5] = ["vendor_id", "cpu family", "model\t", "stepping", "flags"];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.lines().take_while(|line| !line.is_empty());
    first.filter(|line| FIELDS.iter().any(|field| line.starts_with(field))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_used_when_it_works_and_emulation_says_why_not() {
        assert_eq!(Choice::new(Wish::Auto, || Ok(())).accelerator, Accelerator::Kvm);
        let emulated = Choice::new(Wish::Auto, || Err("no device".into()));
        assert_eq!((emulated.accelerator, emulated.reason.as_str()), (Accelerator::Tcg, "no device"));
        let forced = Choice::new("kvm".parse().unwrap(), || Err("not asked".into()));
        assert_eq!(forced.accelerator, Accelerator::Kvm);
        assert_eq!("KVM".parse::<Wish>(), Err(InvalidWish));
    }
}
