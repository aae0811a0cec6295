//! Table `activity`: what happened, for people; bounded. Which events are newer does not depend on the clock.

use sqlx::FromRow;

use super::Store;
use super::webhooks::add_deliveries;
use crate::error::{Error, Result};

/// Events that are kept; older ones are dropped.
pub const KEPT: i64 = 10_000;

/// One event.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct ActivityRow {
    /// UUID.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Such as `vm.created`.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Such as `vm`.
    pub entity_type: Option<String>,
    /// Which one.
    pub entity_id: Option<String>,
    /// For people.
    pub message: String,
    /// JSON object.
    pub meta: Option<String>,
}

impl Store {
    /// Adds an event, with a delivery of `data` to every webhook that wants it, and drops events beyond [`KEPT`].
    /// Gives the number of deliveries that are dropped at once, because too many wait.
    pub async fn add_activity(&self, event: &ActivityRow, data: &str) -> Result<usize> {
        self.forget_and_add(None, event, data).await
    }

    /// The same, and forgets a VM with its exec log: both, or neither.
    pub async fn delete_vm_with(&self, id: &str, event: &ActivityRow, data: &str) -> Result<usize> {
        self.forget_and_add(Some(id), event, data).await
    }

    async fn forget_and_add(&self, vm: Option<&str>, event: &ActivityRow, data: &str) -> Result<usize> {
        match self.try_forget_and_add(vm, event, data).await {
            // In Postgres a webhook can go between being read and being referred to.
            Err(Error::Conflict(_)) => self.try_forget_and_add(vm, event, data).await,
            done => done,
        }
    }

    async fn try_forget_and_add(&self, vm: Option<&str>, event: &ActivityRow, data: &str) -> Result<usize> {
        let mut transaction = self.begin().await?;
        if let Some(id) = vm {
            sqlx::query("DELETE FROM vms WHERE id = $1").bind(id).execute(&mut *transaction).await?;
        }
        // A change comes first: so SQLite never has to make a reader a writer.
        sqlx::query(
            "INSERT INTO activity (id, created_at, type, entity_type, entity_id, message, meta, place)
             VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT COALESCE(MAX(place), 0) + 1 FROM activity))",
        )
        .bind(&event.id)
        .bind(event.created_at)
        .bind(&event.kind)
        .bind(&event.entity_type)
        .bind(&event.entity_id)
        .bind(&event.message)
        .bind(&event.meta)
        .execute(&mut *transaction)
        .await?;
        let dropped = add_deliveries(&mut transaction, &event.kind, event.created_at, data).await?;
        sqlx::query(
            "DELETE FROM activity WHERE place < (SELECT place FROM activity ORDER BY place DESC LIMIT 1 OFFSET $1)",
        )
        .bind(KEPT - 1)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(dropped)
    }

    /// The newest events, newest first.
    pub async fn activity(&self, limit: i64) -> Result<Vec<ActivityRow>> {
        Ok(sqlx::query_as(
            "SELECT id, created_at, type, entity_type, entity_id, message, meta FROM activity
             ORDER BY place DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::migrate::Migrator;
    use sqlx::{AnyPool, Executor as _};

    use super::*;

    /// A full log from before events had places, all of it from the future: the clock was set back since.
    #[tokio::test]
    async fn no_clock_makes_a_new_event_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manager.db");
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(&format!("sqlite://{}?mode=rwc", file.display())).await.unwrap();
        let before = sqlx::migrate!().iter().filter(|migration| migration.version < 27).cloned().collect();
        Migrator::with_migrations(before).run(&pool).await.unwrap();
        // Written in another order than that of their times.
        pool.execute(
            "WITH RECURSIVE numbers (n) AS (SELECT 10000 UNION ALL SELECT n - 1 FROM numbers WHERE n > 1)
             INSERT INTO activity (id, created_at, type, message) SELECT 'e' || n, n + 9000000000000, 'k', 'm' FROM numbers",
        )
        .await
        .unwrap();
        pool.close().await;
        let store = Store::sqlite(&file).await.unwrap();
        let event = |id: &str| ActivityRow {
            id: id.into(),
            created_at: 7,
            kind: "k".into(),
            entity_type: None,
            entity_id: None,
            message: "m".into(),
            meta: None,
        };
        store.add_activity(&event("b"), "{}").await.unwrap();
        store.add_activity(&event("a"), "{}").await.unwrap();
        let kept: Vec<String> = store.activity(KEPT + 1).await.unwrap().into_iter().map(|event| event.id).collect();
        let (first, last) = (&kept[..3], kept.last().unwrap());
        assert_eq!((first, last.as_str()), (&["a".into(), "b".into(), "e10000".into()][..], "e3"));
        assert_eq!(i64::try_from(kept.len()), Ok(KEPT));
    }
}
