//! Times as the wire has them.

use serde::{Serialize, Serializer};
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::clock::{self, rfc3339};
use crate::error::{Error, Result};

/// A time: milliseconds since 1970 inside, RFC 3339 with milliseconds and `Z` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub i64);

/// Reads the time in a field of a request, in milliseconds since 1970.
pub(super) fn parse(field: &str, text: &str) -> Result<i64> {
    let wrong = || Error::Invalid(format!("{field} must be an RFC 3339 time such as 2030-01-31T12:00:00Z"));
    clock::parse(text).ok_or_else(wrong)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2026-01-31T12:00:00.000Z"])
            .into()
    }
}

impl ToSchema for Time {}
