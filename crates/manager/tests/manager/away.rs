//! A database that is away for some changes.

use std::path::Path;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};

/// From now on a change such as `DELETE ON vms` fails.
pub(crate) async fn go(root: &Path, change: &str) {
    change_schema(root, format!("CREATE TRIGGER away BEFORE {change} BEGIN SELECT RAISE(ABORT, 'away'); END")).await;
}

/// It does not fail any more.
pub(crate) async fn come_back(root: &Path) {
    change_schema(root, "DROP TRIGGER away".to_owned()).await;
}

async fn change_schema(root: &Path, statement: String) {
    let url = format!("sqlite://{}", root.join("storage/manager.db").display());
    let mut database = AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}
