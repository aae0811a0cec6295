//! Peers: what a consumer's agent is told, and what a provider's agent is asked for.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use hyper::body::Body as _;
use rds_protocol::peer::{Bridge, Call, OUTCOME_BYTES, Offer, Offered, OpenBridge, Outcome};
use rds_protocol::routes;
use serde::Serialize;
use tokio::time::timeout;

use super::body::pieces;
use super::body::read_whole;
use super::{GuestClient, GuestError, from_json, to_json};

/// Room for what an outcome has around its value.
const OUTCOME_ENVELOPE: usize = 4096;

impl GuestClient {
    /// Has the agent take its code's calls with this token, and with no other once trees are put.
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

    /// Makes a call, and gives the text of its outcome, for [`outcome`]. Dropping the future cancels it.
    ///
    /// Before anything of the outcome is read, `room` is asked for room for so many bytes, within `limit`. What it gives comes
    /// back with the text.
    pub async fn call<Args: Serialize, R, Asked: Future<Output = R>>(
        &self,
        call: &Call<Args>,
        room: impl FnOnce(usize) -> Asked,
        limit: Duration,
    ) -> Result<(Vec<u8>, R), GuestError> {
        const MOST: usize = OUTCOME_BYTES + OUTCOME_ENVELOPE;
        let body = to_json(call);
        let made = async {
            let reply = self.send(Method::POST, routes::CALL, body).await?;
            let announced = reply.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = announced.map_or(MOST, |bytes| bytes.min(MOST));
            let room = room(bytes).await;
            Ok((read_whole(reply, bytes).await?, room))
        };
        timeout(limit, made).await.map_err(|_| GuestError::Timeout)?
    }
}

/// Reads the outcome of a call, which may take 20 times the memory of its text.
pub fn outcome(text: &[u8]) -> Result<Outcome, GuestError> {
    from_json(text)
}
