//! Requests that make something: each is carried out to its end, and one with an `Idempotency-Key` header, sent again by a
//! client that never saw the answer, is not done again.

use std::future::Future;

use axum::Json as Reply;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::auth::Caller;
use crate::clock::now_ms;
use crate::error::{Chain, Error, Result};
use crate::store::Store;
use crate::store::idempotency::{Claim, IdempotencyKey, Work};

/// Longest key, in characters.
const MAX_KEY: usize = 255;

/// A request that carries a key, and what its body was.
pub(super) struct Request {
    key: IdempotencyKey,
    hash: String,
}

impl Request {
    /// `None` if the request carries no key. `scope` names the operation, so that keys of others are apart; `secrets` is
    /// the fingerprint of what the body's JSON form leaves out.
    pub(super) fn of(
        headers: &HeaderMap,
        caller: &Caller,
        scope: &str,
        body: &impl Serialize,
        secrets: Option<[u8; 32]>,
    ) -> Result<Option<Self>> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY);
        let key =
            key.ok_or_else(|| Error::invalid(format!("Idempotency-Key must have 1 to {MAX_KEY} ASCII characters")))?;
        let body =
            serde_json::to_vec(body).map_err(|error| Error::internal("a request body has no JSON form", error))?;
        let hash = Sha256::new().chain_update(body).chain_update(secrets.as_ref().map_or(&[][..], |print| print));
        let hash = hex::encode(hash.finalize());
        let key = IdempotencyKey { caller: caller.0.name(), scope: scope.to_owned(), key: key.to_owned() };
        Ok(Some(Self { key, hash }))
    }
}

/// What is known of a request when its work begins.
pub(super) struct Asked {
    /// What the rows of all that it makes get.
    pub claim: Option<String>,
    /// Ids of what an equal request made whose answer was not kept.
    pub made: Vec<String>,
}

/// Does `work`, which makes something, unless an equal request did it before; then gives that one's answer.
///
/// A client that goes away does not take back what it asked for: work that was dropped half-way would leave what it had
/// begun.
pub(super) async fn once<T: Serialize + Send, F: Future<Output = Result<T>> + Send>(
    store: &Store,
    request: Option<Request>,
    work: impl FnOnce(Asked) -> F + Send + 'static,
) -> Result<Response> {
    let store = store.clone();
    let task = tokio::spawn(async move { answer(&store, request, work).await }.in_current_span());
    task.await.map_err(|error| Error::internal("the task of a request ended", error))?
}

async fn answer<T: Serialize, F: Future<Output = Result<T>>>(
    store: &Store,
    request: Option<Request>,
    work: impl FnOnce(Asked) -> F,
) -> Result<Response> {
    let Some(Request { key, hash }) = request else {
        let made = work(Asked { claim: None, made: Vec::new() }).await?;
        return Ok((StatusCode::CREATED, Reply(made)).into_response());
    };
    match store.claim_idempotent(&key, &hash, now_ms()).await? {
        Claim::Ours(claimed) => {
            let asked = Asked { claim: Some(claimed.claim().to_owned()), made: claimed.made().to_vec() };
            let made = work(asked).await;
            keep(store, claimed, made).await
        }
        Claim::UnderWay => {
            Err(Error::conflict("A request with this Idempotency-Key is still being worked on; try again later"))
        }
        Claim::OtherRequest => Err(Error::conflict("This Idempotency-Key was used for a request with another body")),
        Claim::Done { status, response } => {
            let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            let status = status.ok_or_else(|| Error::internal("a kept answer has no status", "bad row"))?;
            Ok((status, [(header::CONTENT_TYPE, "application/json")], response).into_response())
        }
    }
}

/// Keeps an answer under its key; if that fails, an equal request finds what was made by its claim. An error is not kept:
/// the same request may succeed later.
async fn keep<T: Serialize>(store: &Store, claimed: Work, made: Result<T>) -> Result<Response> {
    let (answer, kept) = match made {
        Ok(body) => {
            let body =
                serde_json::to_string(&body).map_err(|error| Error::internal("an answer has no JSON form", error))?;
            let kept = store.finish_idempotent(claimed, StatusCode::CREATED.as_u16().into(), &body).await;
            let json = [(header::CONTENT_TYPE, "application/json")];
            (Ok((StatusCode::CREATED, json, body).into_response()), kept)
        }
        Err(error) => (Err(error), store.release_idempotent(claimed).await),
    };
    if let Err(error) = kept {
        tracing::warn!(error = %Chain(&error), "cannot keep what became of a request with an Idempotency-Key");
    }
    answer
}
