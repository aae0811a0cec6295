//! `rds serve`: the manager's API on a port.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use rds_manager::{App, Config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::telemetry::Telemetry;
use crate::error::{CliError, chain};
use crate::output;

/// The server's settings.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) config: Config,
}

impl Serve {
    /// Serves until a signal ends it; VMs go on running.
    pub(crate) async fn run(self) -> Result<u8, CliError> {
        let telemetry = Telemetry::start("info", self.config.log.log_json)?;
        let server = Server::start(self.config).await?;
        let stop = stop_signal()?;
        output::note(&format!("listening on {}", server.url()));
        server.run(stop).await?;
        telemetry.close().await;
        Ok(0)
    }
}

/// A manager that is ready and holds its port.
pub(crate) struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port, then starts the services.
    pub(crate) async fn start(config: Config) -> Result<Self, CliError> {
        raise_descriptors();
        forbid_core_dumps();
        let wanted = SocketAddr::new(config.http.bind_address, config.http.port);
        let taken = |error: std::io::Error| {
            CliError::Failed(format!("cannot listen on {wanted}: {error}; PORT or --port names another port"))
        };
        let listener = TcpListener::bind(wanted).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let app = App::start(config).await.map_err(|error| CliError::Failed(chain(&error)))?;
        Ok(Self { app, listener, address })
    }

    /// Where clients on this machine find it.
    pub(crate) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    /// Answers requests until `stop` is done.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), CliError> {
        rds_manager::serve(self.app, self.listener, stop).await.map_err(CliError::file("listener"))
    }
}

/// Raises the limit of open files as far as it goes: what a login shell or systemd begins with is made for programs that use
/// `select`, and each VM takes some descriptors.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// The server's memory holds secrets of VMs, which are on no disk in clear: it leaves no core file. One byte is too little for
/// any, and is also what the kernel takes as a wish that no dump goes to a program (`core_pattern` with a pipe); 0 is not.
fn forbid_core_dumps() {
    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    let none = Rlimit { current: Some(most), maximum: Some(most) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps of the server cannot be forbidden");
    }
}

/// Ends with the first SIGINT or SIGTERM that comes from now on.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()> + Send, CliError> {
    let on = |kind| signal(kind).map_err(CliError::file("signals"));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
