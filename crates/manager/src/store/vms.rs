//! Table `vms`.

use sqlx::FromRow;

use super::Store;
use crate::error::{Error, Result};

/// A VM as it was last written down. Its states and JSON columns are the VM service's business.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct VmRow {
    /// Lower-case UUID.
    pub id: String,
    /// State by its name on the wire.
    pub state: String,
    /// Virtual CPUs.
    pub cpu: i64,
    /// Memory in MiB.
    pub mem_mb: i64,
    /// Size of the writable disk.
    pub disk_bytes: i64,
    /// The image it was made from.
    pub image_id: String,
    /// A number that no other VM has: its uid on the host and its address derive from it.
    pub host_index: i64,
    /// Address of its eth0.
    pub guest_ip: String,
    /// 1 if anything may leave the VM.
    pub outbound_internet: i64,
    /// JSON array of addresses and networks.
    pub allow_ips: String,
    /// JSON array of names.
    pub allow_domains: String,
    /// For people.
    pub name: Option<String>,
    /// JSON object of strings.
    pub labels: String,
    /// The VM ends this long after its creation.
    pub ttl_seconds: Option<i64>,
    /// The VM is idle after this long without use.
    pub idle_timeout_seconds: Option<i64>,
    /// What is done then: `pause` or `delete`.
    pub idle_action: String,
    /// `boot` or `snapshot`.
    pub provision_mode: String,
    /// How it really came up.
    pub started_from: Option<String>,
    /// JSON object: milliseconds of each step of the last start.
    pub timings: String,
    /// What the memory of its machine depends on, of the last start.
    pub fits: Option<String>,
    /// Its secrets, sealed, in base64.
    pub secrets: Option<String>,
    /// Counts the replacements of its secrets, from 1.
    pub secrets_version: i64,
    /// 1 while the agent of a running VM has not confirmed that it has them.
    pub secrets_due: i64,
    /// 1 if it has had secrets in the present start of its machine.
    pub secrets_held: i64,
    /// JSON array of its links to providers.
    pub peer_links: String,
    /// Hash of the token that its code calls its peers with, in hex.
    pub bridge_hash: Option<String>,
    /// Why it is in state ERROR.
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// JSON object: how fast it may use its disk and its network.
    pub limits: String,
}

macro_rules! columns {
    () => {
        "id, state, cpu, mem_mb, disk_bytes, image_id, host_index, guest_ip, outbound_internet, allow_ips, name, labels, \
         ttl_seconds, idle_timeout_seconds, provision_mode, started_from, timings, secrets, \
         secrets_version, peer_links, bridge_hash, error, created_at, idle_action, allow_domains, secrets_due, \
         fits, secrets_held, limits"
    };
}

impl Store {
    /// Adds a VM, with the claim of the request that makes it. A conflict if its id or host index is taken.
    pub async fn insert_vm(&self, vm: &VmRow, claim: Option<&str>) -> Result<()> {
        sqlx::query(concat!(
            "INSERT INTO vms (",
            columns!(),
            ", claim) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
             $23, $24, $25, $26, $27, $28, $29, $30)"
        ))
        .bind(&vm.id)
        .bind(&vm.state)
        .bind(vm.cpu)
        .bind(vm.mem_mb)
        .bind(vm.disk_bytes)
        .bind(&vm.image_id)
        .bind(vm.host_index)
        .bind(&vm.guest_ip)
        .bind(vm.outbound_internet)
        .bind(&vm.allow_ips)
        .bind(&vm.name)
        .bind(&vm.labels)
        .bind(vm.ttl_seconds)
        .bind(vm.idle_timeout_seconds)
        .bind(&vm.provision_mode)
        .bind(&vm.started_from)
        .bind(&vm.timings)
        .bind(&vm.secrets)
        .bind(vm.secrets_version)
        .bind(&vm.peer_links)
        .bind(&vm.bridge_hash)
        .bind(&vm.error)
        .bind(vm.created_at)
        .bind(&vm.idle_action)
        .bind(&vm.allow_domains)
        .bind(vm.secrets_due)
        .bind(&vm.fits)
        .bind(vm.secrets_held)
        .bind(&vm.limits)
        .bind(claim)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes down a VM's state, and why if it is an error.
    pub async fn set_vm_state(&self, id: &str, state: &str, error: Option<&str>) -> Result<()> {
        sqlx::query("UPDATE vms SET state = $2, error = $3 WHERE id = $1")
            .bind(id)
            .bind(state)
            .bind(error)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Takes VMs from one state to another, all or none. A conflict if one of them is not in the first.
    pub async fn turn_vms(&self, ids: &[String], from: &str, to: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        for id in ids {
            let turned = sqlx::query("UPDATE vms SET state = $3 WHERE id = $1 AND state = $2")
                .bind(id)
                .bind(from)
                .bind(to)
                .execute(&mut *transaction)
                .await?;
            if turned.rows_affected() != 1 {
                return Err(Error::Conflict(format!("VM {id} was deleted, or is in another state, meanwhile")));
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Writes down how a VM came up, which is with its newest secrets; `timings` is a JSON object.
    pub async fn set_vm_started(
        &self,
        id: &str,
        started_from: &str,
        timings: &str,
        fits: Option<&str>,
        bridge_hash: Option<&str>,
    ) -> Result<()> {
        let statement = "UPDATE vms SET started_from = $2, timings = $3, fits = $4, bridge_hash = $5, secrets_due = 0, \
                         secrets_held = CASE WHEN secrets IS NULL THEN 0 ELSE 1 END WHERE id = $1";
        sqlx::query(statement)
            .bind(id)
            .bind(started_from)
            .bind(timings)
            .bind(fits)
            .bind(bridge_hash)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Replaces a VM's sealed secrets; `due` if its agent is still to get them, `held` if its machine has had any.
    pub async fn set_vm_secrets(
        &self,
        id: &str,
        secrets: Option<&str>,
        version: i64,
        due: bool,
        held: bool,
    ) -> Result<()> {
        let statement =
            "UPDATE vms SET secrets = $2, secrets_version = $3, secrets_due = $4, secrets_held = $5 WHERE id = $1";
        sqlx::query(statement)
            .bind(id)
            .bind(secrets)
            .bind(version)
            .bind(i64::from(due))
            .bind(i64::from(held))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Writes down that a VM's agent has its newest secrets.
    pub async fn confirm_vm_secrets(&self, id: &str) -> Result<()> {
        sqlx::query("UPDATE vms SET secrets_due = 0 WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Replaces what a VM may reach; the lists are JSON arrays.
    pub async fn set_vm_network(
        &self,
        id: &str,
        outbound_internet: bool,
        allow_ips: &str,
        allow_domains: &str,
    ) -> Result<()> {
        let statement = "UPDATE vms SET outbound_internet = $2, allow_ips = $3, allow_domains = $4 WHERE id = $1";
        sqlx::query(statement)
            .bind(id)
            .bind(i64::from(outbound_internet))
            .bind(allow_ips)
            .bind(allow_domains)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Replaces a VM's links and the hash of its token.
    pub async fn set_vm_links(&self, id: &str, peer_links: &str, bridge_hash: Option<&str>) -> Result<()> {
        sqlx::query("UPDATE vms SET peer_links = $2, bridge_hash = $3 WHERE id = $1")
            .bind(id)
            .bind(peer_links)
            .bind(bridge_hash)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// One VM.
    pub async fn vm(&self, id: &str) -> Result<Option<VmRow>> {
        Ok(sqlx::query_as(concat!("SELECT ", columns!(), " FROM vms WHERE id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// All VMs, oldest first.
    pub async fn vms(&self) -> Result<Vec<VmRow>> {
        Ok(sqlx::query_as(concat!("SELECT ", columns!(), " FROM vms ORDER BY created_at, id"))
            .fetch_all(&self.pool)
            .await?)
    }

    /// Forgets a VM with its exec log. False if there was none.
    pub async fn delete_vm(&self, id: &str) -> Result<bool> {
        let gone = sqlx::query("DELETE FROM vms WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// How many VMs were made from an image.
    pub async fn vms_of_image(&self, image_id: &str) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM vms WHERE image_id = $1")
            .bind(image_id)
            .fetch_one(&self.pool)
            .await?)
    }

    /// How many VMs there are in a state.
    pub async fn vms_in_state(&self, state: &str) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT COUNT(*) FROM vms WHERE state = $1").bind(state).fetch_one(&self.pool).await?)
    }
}
