//! Secrets of VMs are sealed with another key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rds_manager::error::Chain;
use rds_manager::secrets::{Rekeyed, Sealer, SecretEnv, rekey};
use rds_manager::store::Store;
use rds_manager::{Config, Error};
use rds_vmm::VmId;
use secrecy::SecretString;
use sqlx::AnyPool;
use tempfile::TempDir;

use crate::store::suite::vm as vm_row;
use crate::test_app::config;

struct Host {
    dir: TempDir,
    vms: Vec<VmId>,
}

fn sealer(key: &str) -> Sealer {
    Sealer::new(&SecretString::from(key)).unwrap()
}

fn secrets(vm: VmId) -> SecretEnv {
    SecretEnv::parse(vec![format!("TOKEN=of {vm}")]).unwrap()
}

impl Host {
    /// Three VMs with secrets, one without.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::sqlite(&dir.path().join("manager.db")).await.unwrap();
        let (mut vms, key) = (Vec::new(), sealer("old"));
        for index in 0..4 {
            let id = VmId::new();
            let sealed = (index < 3).then(|| STANDARD.encode(key.seal(id, &secrets(id)).unwrap()));
            vms.extend((index < 3).then_some(id));
            store
                .insert_vm(&rds_manager::store::vms::VmRow { secrets: sealed, ..vm_row(&id.to_string(), index) }, None)
                .await
                .unwrap();
        }
        store.close().await;
        Self { dir, vms }
    }

    fn config(&self) -> Config {
        config(&self.dir, &["--vm-secret-key", "new"])
    }

    async fn rekey(&self, old: &str) -> Result<Rekeyed, Error> {
        rekey(&self.config(), &SecretString::from(old)).await
    }

    /// Whether this key opens all secrets.
    async fn open_with(&self, key: &str) -> bool {
        let store = Store::sqlite(&self.dir.path().join("manager.db")).await.unwrap();
        let key = sealer(key);
        let mut all = true;
        for vm in &self.vms {
            let sealed = store.vm(&vm.to_string()).await.unwrap().unwrap().secrets.unwrap();
            all &= key.open(*vm, &STANDARD.decode(sealed).unwrap()).is_ok_and(|opened| opened == secrets(*vm));
        }
        store.close().await;
        all
    }

    async fn sql(&self, statement: &'static str) {
        let url = format!("sqlite://{}", self.dir.path().join("manager.db").display());
        let database = AnyPool::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&database).await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn all_secrets_are_sealed_anew() {
    let host = Host::new().await;
    assert_eq!(host.rekey("old").await.unwrap(), Rekeyed { changed: 3, already: 0 });
    assert!(host.open_with("new").await);
    assert_eq!(host.rekey("old").await.unwrap(), Rekeyed { changed: 0, already: 3 }, "it can be said twice");
    assert!(host.open_with("new").await);
}

#[tokio::test]
async fn a_wrong_old_key_changes_nothing() {
    let host = Host::new().await;
    let error = host.rekey("older").await.unwrap_err();
    assert!(error.to_string().contains("neither with the old key nor with the new one"), "{}", Chain(&error));
    assert!(host.open_with("old").await);
    let without = rekey(&config(&host.dir, &[]), &SecretString::from("old")).await.unwrap_err();
    assert!(without.to_string().starts_with("VM_SECRET_KEY is not set"), "{without}");
}

#[tokio::test]
async fn it_is_all_or_nothing() {
    let host = Host::new().await;
    host.sql(
        "CREATE TRIGGER fails BEFORE UPDATE ON vms WHEN (SELECT COUNT(*) FROM vms WHERE id < OLD.id AND secrets IS NOT NULL) = 2
         BEGIN SELECT RAISE(ABORT, 'the power went'); END",
    )
    .await;
    let error = host.rekey("old").await.unwrap_err();
    assert!(Chain(&error).to_string().contains("the power went"), "{}", Chain(&error));
    assert!(host.open_with("old").await);
    host.sql("DROP TRIGGER fails").await;
    assert_eq!(host.rekey("old").await.unwrap().changed, 3);
    assert!(host.open_with("new").await);
}

#[tokio::test]
async fn a_storage_root_in_use_is_left_alone() {
    let host = Host::new().await;
    let _lock = rds_manager::storage::lock(host.dir.path()).unwrap();
    let error = host.rekey("old").await.unwrap_err();
    assert!(matches!(&error, Error::Conflict(message) if message.contains("another server")), "{error}");
    assert!(host.open_with("old").await);
}
