//! `rds serve`: the manager's API on a port.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use rds_manager::{App, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::telemetry::Telemetry;
use crate::error::CliError;

/// The server's settings.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) config: Config,
    /// Log as JSON, one object a line
    #[arg(long, env = "LOG_JSON")]
    pub(crate) log_json: bool,
}

impl Serve {
    /// Serves until a signal ends it; VMs go on running.
    pub(crate) async fn run(self) -> Result<u8, CliError> {
        let telemetry = Telemetry::start("info", self.log_json)?;
        let server = Server::start(self.config).await?;
        eprintln!("listening on {}", server.url());
        server.run().await?;
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
        let config = config.validated().map_err(|error| CliError::Usage(error.to_string()))?;
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

    /// Answers requests until a signal ends it.
    pub(crate) async fn run(self) -> Result<(), CliError> {
        let stop = stop_signal().map_err(CliError::file("signals"))?;
        rds_manager::serve(self.app, self.listener, stop).await.map_err(CliError::file("listener"))
    }
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Ends with the first SIGINT or SIGTERM.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
