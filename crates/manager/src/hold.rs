//! Who is about to open the files of an image or a snapshot. Until then nothing of it may go.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

/// How many hold each thing of a kind, by its id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(watch::Sender<HashMap<String, usize>>);

/// One use by a VM that is not in the store yet, or has not come up yet.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Holds,
    id: String,
}

impl Holds {
    /// Holds it until what this gives is dropped.
    pub(crate) fn hold(&self, id: &str) -> Arc<Hold> {
        self.0.send_modify(|holds| *holds.entry(id.to_owned()).or_default() += 1);
        Arc::new(Hold { holds: self.clone(), id: id.to_owned() })
    }

    /// Whether anybody holds it.
    pub(crate) fn is_held(&self, id: &str) -> bool {
        self.0.borrow().contains_key(id)
    }

    /// Waits until nobody holds it. Somebody may again at once.
    pub(crate) async fn released(&self, id: &str) {
        // It fails only without a sender, and this is one.
        let _ = self.0.subscribe().wait_for(|holds| !holds.contains_key(id)).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.0.send_modify(|holds| {
            if let Some(count) = holds.get_mut(&self.id) {
                *count -= 1;
                if *count == 0 {
                    holds.remove(&self.id);
                }
            }
        });
    }
}
