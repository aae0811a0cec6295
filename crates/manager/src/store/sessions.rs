//! Table `sessions`: who is signed in. Only hashes of the cookies' values are here.

use super::Store;
use crate::error::Result;

impl Store {
    /// Adds a session and drops those that have expired.
    pub async fn insert_session(&self, hash: &str, email: &str, now: i64, expires_at: i64) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1").bind(now).execute(&self.pool).await?;
        sqlx::query("INSERT INTO sessions (hash, email, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(hash)
            .bind(email)
            .bind(now)
            .bind(expires_at)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whose session it is, if it has not expired.
    pub async fn session_email(&self, hash: &str, now: i64) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("SELECT email FROM sessions WHERE hash = $1 AND expires_at > $2")
            .bind(hash)
            .bind(now)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Ends a session for good.
    pub async fn delete_session(&self, hash: &str) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(hash).execute(&self.durable).await?;
        Ok(())
    }
}
