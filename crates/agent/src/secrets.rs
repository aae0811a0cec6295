//! The environment of a VM's secrets. It is in the agent's memory and in that of programs it is given to, nowhere else.

use std::collections::BTreeMap;

use zeroize::Zeroize;

/// Values by name. They are overwritten when they are dropped.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The variables.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}
