//! What executes a guest's instructions: the processor, or an emulation of one.

use std::fmt;

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
pub enum AcceleratorWish {
    /// KVM where it has run guest code, emulation elsewhere.
    #[default]
    Auto,
    /// This one, tried or not.
    Exactly(Accelerator),
}

impl AcceleratorWish {
    /// The accelerator that follows from this and from what KVM was found to be (`Err` says why it cannot be used), and, for
    /// people, why it is that one.
    pub(crate) fn settle(self, kvm: Result<(), String>) -> (Accelerator, String) {
        match (self, kvm) {
            (Self::Exactly(accelerator), _) => (accelerator, "it was asked for".into()),
            (Self::Auto, Ok(())) => (Accelerator::Kvm, "guest code ran under KVM".into()),
            (Self::Auto, Err(why)) => (Accelerator::Tcg, why),
        }
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
        assert_eq!(AcceleratorWish::Auto.settle(Ok(())).0, Accelerator::Kvm);
        assert_eq!(AcceleratorWish::Auto.settle(Err("no device".into())), (Accelerator::Tcg, "no device".into()));
        let forced = AcceleratorWish::Exactly(Accelerator::Kvm).settle(Err("not asked".into()));
        assert_eq!(forced.0, Accelerator::Kvm);
    }
}
