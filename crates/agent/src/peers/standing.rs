//! How far a worker is: which of its modules it has loaded, and whether it is given further calls. Pure.

use rds_protocol::peer::{OfferedModule, Uncallable};

/// A worker's standing.
#[derive(Debug)]
pub(super) struct Standing {
    /// Whether it is given further calls.
    pub(super) trust: Trust,
    modules: Vec<Module>,
}

/// A module that a worker was told to load.
#[derive(Debug)]
struct Module {
    path: String,
    /// What of it can't be called, once it was loaded or could not be.
    uncallable: Option<Vec<Uncallable>>,
}

/// Whether a worker is given further calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is.
    Full,
    /// It was told to cancel a call, and has said nothing since. Further calls wait.
    Doubted,
    /// It is not any more.
    Lost(Loss),
}

/// Why a worker is given no further calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It has ended, says nonsense or is stuck.
    Ended,
    /// It has not loaded its modules in time.
    Late,
}

impl Standing {
    /// That of a worker which has loaded nothing yet.
    pub(super) fn new(modules: &[&OfferedModule]) -> Self {
        let module = |module: &&OfferedModule| Module { path: module.path.clone(), uncallable: None };
        Self { trust: Trust::Full, modules: modules.iter().map(module).collect() }
    }

    /// Takes a worker's word that a module was loaded or could not be. Only the first about each module counts.
    pub(super) fn take(&mut self, path: &str, uncallable: Vec<Uncallable>) -> bool {
        let mut awaited = self.modules.iter_mut().filter(|module| module.uncallable.is_none());
        let module = awaited.find(|module| module.path == path);
        module.map(|module| module.uncallable = Some(uncallable)).is_some()
    }

    /// Whether this module is still to be loaded.
    pub(super) fn is_loading(&self, path: &str) -> bool {
        self.modules.iter().any(|module| module.path == path && module.uncallable.is_none())
    }

    /// Whether none is still to be loaded.
    pub(super) fn is_loaded(&self) -> bool {
        self.modules.iter().all(|module| module.uncallable.is_some())
    }

    /// The exports that can't be called of the modules that it has tried to load.
    pub(super) fn uncallable(&self) -> Vec<Uncallable> {
        self.modules.iter().filter_map(|module| module.uncallable.as_ref()).flatten().cloned().collect()
    }

    /// Changes its trust if it is this one. Says whether it was.
    pub(super) fn change(&mut self, from: Trust, to: Trust) -> bool {
        let changes = self.trust == from;
        if changes {
            self.trust = to;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(path: &str) -> OfferedModule {
        OfferedModule { path: path.into(), exports: vec!["f".into()] }
    }

    fn uncallable(path: &str, reason: &str) -> Vec<Uncallable> {
        vec![Uncallable { path: path.into(), export: "f".into(), reason: reason.into() }]
    }

    #[test]
    fn a_module_may_be_called_while_others_load() {
        let mut standing = Standing::new(&[&offered("a"), &offered("b")]);
        assert!(standing.is_loading("a") && standing.is_loading("b") && !standing.is_loaded());
        assert!(standing.take("b", Vec::new()));
        assert!(standing.is_loading("a") && !standing.is_loading("b") && !standing.is_loaded());
        assert!(standing.take("a", uncallable("a", "why")));
        assert!(!standing.is_loading("a") && standing.is_loaded());
        assert_eq!(standing.uncallable(), uncallable("a", "why"));
    }

    #[test]
    fn a_worker_may_say_what_it_likes() {
        let mut standing = Standing::new(&[&offered("a")]);
        assert!(!standing.take("b", uncallable("b", "why")));
        assert!(standing.take("a", uncallable("a", "first")));
        assert!(!standing.take("a", uncallable("a", "second")));
        assert_eq!(standing.uncallable(), uncallable("a", "first"));
        assert!(Standing::new(&[]).is_loaded());
    }

    #[test]
    fn trust_that_was_lost_stays_lost() {
        let mut standing = Standing::new(&[]);
        assert!(standing.change(Trust::Full, Trust::Doubted));
        assert!(standing.change(Trust::Doubted, Trust::Full));
        standing.trust = Trust::Lost(Loss::Ended);
        assert!(!standing.change(Trust::Doubted, Trust::Full));
        assert_eq!(standing.trust, Trust::Lost(Loss::Ended));
    }
}
