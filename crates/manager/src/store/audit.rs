//! Table `audit`: the hash-chained records of peer calls; only ever added to.

use sqlx::any::AnyArguments;
use sqlx::query::QueryAs;
use sqlx::{Any, AssertSqlSafe, FromRow};

use super::Store;
use crate::error::Result;

/// A record, with the parts of it that it can be found by.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AuditRow {
    /// The record itself.
    #[sqlx(flatten)]
    pub stored: StoredRecord,
    /// When the call came, in milliseconds since 1970.
    pub time: i64,
    /// Id of the calling VM.
    pub consumer: String,
    /// Id of the called VM.
    pub provider: Option<String>,
    /// The alias that was called.
    pub alias: String,
    /// The export that was called.
    pub export: String,
    /// How it ended.
    pub outcome: String,
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StoredRecord {
    /// Its place in the log, from 0.
    pub sequence: i64,
    /// Its text, these very bytes.
    pub text: String,
    /// Its hash in hexadecimal.
    pub hash: String,
}

/// Which records to look for; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Id of the calling VM.
    pub consumer: Option<String>,
    /// Id of the called VM.
    pub provider: Option<String>,
    /// The alias that was called.
    pub alias: Option<String>,
    /// The export that was called.
    pub export: Option<String>,
    /// How it ended.
    pub outcome: Option<&'static str>,
    /// The first moment, in milliseconds since 1970.
    pub since: Option<i64>,
    /// The first moment that is too late.
    pub until: Option<i64>,
}

/// Which part of the log to read, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditRange {
    /// The newest before this place, newest first.
    Before(i64),
    /// The oldest from this place on, oldest first.
    From(i64),
}

impl Store {
    /// Adds records for good, all or none. A conflict if a place is taken.
    pub async fn add_audit(&self, rows: &[AuditRow]) -> Result<()> {
        let mut transaction = self.durable.begin().await?;
        for row in rows {
            sqlx::query(
                "INSERT INTO audit (sequence, text, hash, time, consumer, provider, alias, export, outcome)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(row.stored.sequence)
            .bind(&row.stored.text)
            .bind(&row.stored.hash)
            .bind(row.time)
            .bind(&row.consumer)
            .bind(&row.provider)
            .bind(&row.alias)
            .bind(&row.export)
            .bind(&row.outcome)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The last record.
    pub async fn last_audit(&self) -> Result<Option<StoredRecord>> {
        Ok(sqlx::query_as("SELECT sequence, text, hash FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await?)
    }

    /// At most `limit` records of a part of the log.
    pub async fn audit(&self, filter: &AuditFilter, range: AuditRange, limit: i64) -> Result<Vec<AuditRow>> {
        let (place, comparison, order) = match range {
            AuditRange::Before(place) => (place, "<", "DESC"),
            AuditRange::From(place) => (place, ">=", "ASC"),
        };
        let conditions = filter.conditions();
        let mut sql = format!(
            "SELECT sequence, text, hash, time, consumer, provider, alias, export, outcome FROM audit
             WHERE sequence {comparison} $1"
        );
        for (index, (column, comparison, _)) in conditions.iter().enumerate() {
            sql += &format!(" AND {column} {comparison} ${}", index + 3);
        }
        sql += &format!(" ORDER BY sequence {order} LIMIT $2");
        // Nothing of a caller is in the text: the columns and comparisons are written below.
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(place).bind(limit);
        let query = conditions.into_iter().fold(query, |query, (_, _, value)| value.bind_to(query));
        Ok(query.fetch_all(&self.pool).await?)
    }
}

enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

type Query<'a> = QueryAs<'a, Any, AuditRow, AnyArguments>;

impl<'a> Value<'a> {
    fn bind_to(self, query: Query<'a>) -> Query<'a> {
        match self {
            Self::Text(text) => query.bind(text),
            Self::Number(number) => query.bind(number),
        }
    }
}

impl AuditFilter {
    /// Column, comparison and value of each thing that matters. A condition that is always there, such as
    /// `$1 IS NULL OR ...`, would keep the database from using an index.
    fn conditions(&self) -> Vec<(&'static str, &'static str, Value<'_>)> {
        let texts = [
            ("consumer", self.consumer.as_deref()),
            ("provider", self.provider.as_deref()),
            ("alias", self.alias.as_deref()),
            ("export", self.export.as_deref()),
            ("outcome", self.outcome),
        ];
        let times = [(">=", self.since), ("<", self.until)];
        let texts = texts.into_iter().filter_map(|(column, text)| Some((column, "=", Value::Text(text?))));
        let times = times.into_iter().filter_map(|(comparison, at)| Some(("time", comparison, Value::Number(at?))));
        texts.chain(times).collect()
    }
}
