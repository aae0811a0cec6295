//! Table `installation`: the id of the installation that the database belongs to.

use super::Store;
use crate::error::Result;

impl Store {
    /// The id, if the database has one yet.
    pub async fn installation(&self) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT id FROM installation").fetch_optional(&self.pool).await?)
    }

    /// Gives the database its id. A conflict if it has one.
    pub async fn set_installation(&self, id: &str) -> Result<()> {
        sqlx::query("INSERT INTO installation (one, id) VALUES (1, $1)").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Whether there is nothing that has files in a storage root.
    pub async fn has_no_files(&self) -> Result<bool> {
        let things: i64 = sqlx::query_scalar(
            "SELECT (SELECT COUNT(*) FROM vms) + (SELECT COUNT(*) FROM snapshots)
             + (SELECT COUNT(*) FROM image_files WHERE in_place = 0)",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(things == 0)
    }
}
