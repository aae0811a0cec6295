//! The store, by the same tests on both databases.

mod postgres;
pub(crate) mod suite;

use rds_manager::Error;
use rds_manager::store::Store;
use rds_manager::store::audit::{AuditFilter, AuditRange};

#[tokio::test]
async fn the_store_works_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a name with 100% ?#.db");
    let store = Store::sqlite(&file).await.unwrap();
    suite::run(&store).await;
    let alias = dir.path().join("alias.db");
    std::os::unix::fs::symlink(&file, &alias).unwrap();
    for name in [&file, &alias] {
        let second = Store::sqlite(name).await;
        assert!(matches!(second, Err(Error::Conflict(why)) if why.contains("another server")));
    }
    store.close().await;
    assert!(file.is_file(), "the file has the name that was asked for");
    suite::has_kept(&Store::sqlite(&file).await.unwrap()).await;
}

#[tokio::test]
#[ignore = "needs Debian's package postgresql"]
async fn the_store_works_on_postgres() {
    let server = postgres::Server::start();
    let store = Store::postgres(&server.url()).await.unwrap();
    suite::run(&store).await;
    let second = Store::postgres(&server.url()).await;
    assert!(matches!(second, Err(Error::Conflict(why)) if why.contains("another server")));
    let odd = AuditFilter { alias: Some("a\0b".into()), ..AuditFilter::default() };
    let refused = store.audit(&odd, AuditRange::From(0), 1).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    store.close().await;
    suite::has_kept(&Store::postgres(&server.url()).await.unwrap()).await;
}
