//! Path and query parameters whose faults are errors like all others.

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Decoded path parameters.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AxumPath(value) =
            AxumPath::from_request_parts(parts, state).await.map_err(|fault| Error::Invalid(fault.body_text()))?;
        Ok(Self(value))
    }
}

/// How many things a list may have: what was asked for, from 1 to `most`, or `usual`.
pub(super) fn limit(asked: Option<u32>, usual: u32, most: u32) -> Result<u32> {
    let limit = asked.unwrap_or(usual);
    if (1..=most).contains(&limit) { Ok(limit) } else { Err(Error::Invalid(format!("limit must be from 1 to {most}"))) }
}

/// Decoded query parameters.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AxumQuery(value) =
            AxumQuery::from_request_parts(parts, state).await.map_err(|fault| Error::Invalid(fault.body_text()))?;
        Ok(Self(value))
    }
}
