//! Looking at the network while the server runs: what was counted, what was denied, and whether the rules are as they
//! were made.

use std::sync::Arc;
use std::time::Duration;

use rds_egress::Network;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Egress;
use crate::activity::Activity;
use crate::error::Chain;

/// How often it is looked what was counted and denied.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often the rules are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// Destinations of one VM that are told of between two of its starts or changes: a guest decides how many it tries.
const MOST_TOLD: usize = 100;

/// Looks until the server ends.
pub(crate) async fn watch(egress: Arc<Egress>, activity: Activity, shutdown: CancellationToken) {
    let Ok(network) = &egress.network else { return };
    let (mut look, mut compare) = (interval(LOOK_EVERY), interval(COMPARE_EVERY));
    for ticks in [&mut look, &mut compare] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one comes at once, when there is nothing to see yet.
        ticks.tick().await;
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => look_at(&egress, network, &activity).await,
            _ = compare.tick() => compare_rules(network, &activity).await,
        }
    }
}

async fn look_at(egress: &Egress, network: &Network, activity: &Activity) {
    if egress.known().taps.is_empty() {
        return;
    }
    let (counters, denials) = match network.look().await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot see what was counted of VMs' networks");
            // The table may be gone.
            return compare_rules(network, activity).await;
        }
    };
    egress.known().count(counters);
    for denial in denials {
        let Some(vm) = egress.known().news(denial, MOST_TOLD) else { continue };
        let message = format!("The VM was kept from {}", denial.to);
        let meta = json!({"destination": denial.to});
        activity.record("vm.egress_denied", &vm.to_string(), message, Some(meta)).await;
    }
}

async fn compare_rules(network: &Network, activity: &Activity) {
    match network.compare().await {
        Ok(None) => {}
        Ok(Some(repaired)) => {
            let message = format!("The firewall was not as it was made, and is again: {}", repaired.what);
            activity.record("network.repaired", "firewall", message, None).await;
        }
        Err(error) => tracing::error!(error = %Chain(&error), "cannot compare the firewall's rules"),
    }
}
