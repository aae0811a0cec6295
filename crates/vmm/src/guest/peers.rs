//! Peers: what a consumer's agent is told, and what a provider's agent is asked for.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use rds_protocol::peer::{Bridge, Call, OUTCOME_BYTES, Offer, Offered, OpenBridge, Outcome};
use rds_protocol::routes;

use super::body::pieces;
use super::{GuestClient, GuestError, to_json};

/// Room for what an outcome has around its value.
const OUTCOME_ENVELOPE: usize = 4096;

impl GuestClient {
    /// Has the agent take its code's calls with this token, and with no other.
    pub async fn open_bridge(&self, order: &OpenBridge, limit: Duration) -> Result<Bridge, GuestError> {
        self.json(Method::POST, routes::BRIDGE, to_json(order), limit).await
    }

    /// Replaces the directories that tell the guest's code about its peers. An error item breaks the call off, and the
    /// old ones stay.
    pub async fn put_trees(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        limit: Duration,
    ) -> Result<(), GuestError> {
        self.empty(Method::PUT, routes::TREES, pieces(archive), limit).await
    }

    /// Has the agent load the modules that may be called from now on.
    pub async fn offer(&self, offer: &Offer, limit: Duration) -> Result<Offered, GuestError> {
        self.json(Method::POST, routes::OFFER, to_json(offer), limit).await
    }

    /// Makes a call. Dropping the future cancels it.
    pub async fn call(&self, call: &Call, limit: Duration) -> Result<Outcome, GuestError> {
        self.json_of(OUTCOME_BYTES + OUTCOME_ENVELOPE, Method::POST, routes::CALL, to_json(call), limit).await
    }
}
