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
    /// What of it can't be called, once it was loaded or could not be: one export at most, of which the manager tells.
    uncallable: Option<Option<Uncallable>>,
}

/// Bytes of a worker's words about an export. The worker can say more than its program does: longer ones are left out, not cut,
/// or half a secret would not be found in them.
const WORDS: usize = 16 * 1024;

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
        let first = uncallable.into_iter().next().map(|first| Uncallable {
            path: path.to_owned(),
            export: bounded(first.export),
            reason: bounded(first.reason),
        });
        module.map(|module| module.uncallable = Some(first)).is_some()
    }

    /// Whether this module is still to be loaded.
    pub(super) fn is_loading(&self, path: &str) -> bool {
        self.modules.iter().any(|module| module.path == path && module.uncallable.is_none())
    }

    /// Whether none is still to be loaded.
    pub(super) fn is_loaded(&self) -> bool {
        self.modules.iter().all(|module| module.uncallable.is_some())
    }

    /// Of each module that it has tried to load, an export that can't be called.
    pub(super) fn uncallable(&self) -> Vec<Uncallable> {
        self.modules.iter().filter_map(|module| module.uncallable.as_ref()?.clone()).collect()
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

fn bounded(words: String) -> String {
    if words.len() > WORDS { "[left out]".into() } else { words }
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
    fn words_of_any_length_and_number_take_bounded_room() {
        let mut standing = Standing::new(&[&offered("a")]);
        let long = "x".repeat(WORDS + 1);
        let said = Uncallable { path: long.clone(), export: long.clone(), reason: long };
        assert!(standing.take("a", vec![said; 100]));
        let left_out = || "[left out]".to_owned();
        let kept = Uncallable { path: "a".into(), export: left_out(), reason: left_out() };
        assert_eq!(standing.uncallable(), [kept]);
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
