//! What lives as long as the server.

use std::sync::Arc;

use rds_vmm::Hypervisor;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::audit::Audit;
use crate::auth::Auth;
use crate::config::{Config, Dialect};
use crate::egress::{Egress, watch};
use crate::error::{Error, Result};
use crate::hypervisor::{self, MonitorUsers};
use crate::images::Images;
use crate::installation;
use crate::rate_limit::RateLimits;
use crate::secrets::Sealer;
use crate::seeds::Seeds;
use crate::storage::{self, Lock};
use crate::store::Store;
use crate::vms::{Services, Vms};
use crate::webhooks::Webhooks;

/// The services and what they share. Handlers get it as `State<Arc<App>>`.
#[derive(Debug)]
pub struct App {
    /// What the operator decided.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// What happened.
    pub activity: Activity,
    /// Where what happened is sent.
    pub webhooks: Webhooks,
    /// What VMs called of each other.
    pub audit: Audit,
    /// Who is asking.
    pub auth: Auth,
    /// How often they may.
    pub rate_limits: RateLimits,
    /// What VMs are made from.
    pub images: Arc<Images>,
    /// What VMs start from without being booted.
    pub seeds: Arc<Seeds>,
    /// What VMs may reach.
    pub egress: Arc<Egress>,
    /// The VMs.
    pub vms: Vms,
    /// Done when the server is to end; streams without an end of their own end then.
    pub shutdown: CancellationToken,
    _lock: Lock,
}

impl App {
    /// Takes the storage root for this process, opens the database and starts the services.
    pub async fn start(config: Config) -> Result<Arc<Self>> {
        let lock = storage::prepare(&config.storage)?;
        let hypervisor = hypervisor::choose(&config).await?;
        Self::assemble(config, hypervisor, lock).await
    }

    /// The same with a virtual machine monitor of the caller's choice.
    pub async fn start_with(config: Config, hypervisor: Arc<dyn Hypervisor>) -> Result<Arc<Self>> {
        let lock = storage::prepare(&config.storage)?;
        Self::assemble(config, hypervisor, lock).await
    }

    async fn assemble(config: Config, hypervisor: Arc<dyn Hypervisor>, lock: Lock) -> Result<Arc<Self>> {
        let store = open_store(&config).await?;
        installation::check(&config.storage, &store).await?;
        let activity = Activity::new(store.clone());
        let audit = Audit::open(store.clone()).await?;
        let auth = Auth::new(&config.auth, store.clone())?;
        let rate_limits = RateLimits::new(&config.rate_limits);
        let images = Arc::new(Images::start(&config.storage, store.clone(), activity.clone()).await?);
        let shutdown = CancellationToken::new();
        let sealer = config.auth.vm_secret_key.as_ref().map(Sealer::new).transpose()?.map(Arc::new);
        let webhooks =
            Webhooks::start(&config.webhooks, store.clone(), activity.clone(), sealer.clone(), shutdown.clone());
        let webhooks = webhooks.await?;
        let egress = Egress::start(&config.network, MonitorUsers::of(&config.hypervisor))
            .await?
            .with_names(&config.network, activity.clone());
        let egress = Arc::new(egress);
        let (monitor, images_too) = (Arc::clone(&hypervisor), Arc::clone(&images));
        let seeds = Seeds::start(monitor, &config, images_too, Arc::clone(&egress), shutdown.clone()).await?;
        let services = Services {
            images: Arc::clone(&images),
            seeds: Arc::clone(&seeds),
            egress: Arc::clone(&egress),
            activity: activity.clone(),
            audit: audit.clone(),
            sealer,
        };
        let vms = Vms::start(hypervisor, &config, store.clone(), services).await?;
        vms.keep_pool(shutdown.clone());
        tokio::spawn(watch(Arc::clone(&egress), activity.clone(), shutdown.clone()));
        Ok(Arc::new(Self {
            config,
            store,
            activity,
            webhooks,
            audit,
            auth,
            rate_limits,
            images,
            seeds,
            egress,
            vms,
            shutdown,
            _lock: lock,
        }))
    }
}

pub(crate) async fn open_store(config: &Config) -> Result<Store> {
    use secrecy::ExposeSecret as _;
    match (config.database.db_dialect, &config.database.database_url) {
        (Dialect::Postgres, Some(url)) => Store::postgres(url.expose_secret()).await,
        (Dialect::Postgres, None) => Err(Error::invalid("DB_DIALECT is postgres but DATABASE_URL is not set")),
        (Dialect::Sqlite, _) => {
            let file = config.database.sqlite_path.clone();
            Store::sqlite(&file.unwrap_or_else(|| config.storage.storage_root.join("manager.db"))).await
        }
    }
}
