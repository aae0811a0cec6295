//! The command line: its groups, the flags that all of them share, and the way from arguments to a command.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rds_manager::config::{self, Config, ConfigError};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::arguments::{self, Said};
use crate::client::Client;
use crate::commands::{
    api_key, audit, bench, cp, demo, doctor, exec, image, peers, run, secrets, serve, setup, snapshot, up, vm, webhook,
};
use crate::error::CliError;
use crate::{output, settings};

/// Run code in microVMs of your own.
///
/// `rds up` makes everything ready on this machine and starts the server; the other commands talk to a server.
#[derive(Debug, Parser)]
#[command(name = "rds", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// What every command that talks to a server needs.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Address of the server
    #[arg(long, global = true, env = "RDS_URL", default_value = "http://127.0.0.1:3000", help_heading = "Server")]
    pub(crate) url: String,
    /// API key [default: the one that `rds up` keeps on this machine, if --url names this machine]
    // The same id and type as the server's own setting, which takes its place in `serve` and `up`.
    #[arg(long, global = true, env = "RDS_API_KEY", hide_env_values = true, value_parser = secret,
          value_name = "SECRET", help_heading = "Server")]
    pub(crate) api_key: Option<SecretString>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make everything ready on this machine, then serve
    Up(up::Up),
    /// Serve the API
    Serve(serve::Serve),
    /// Make, list, stop, start and remove VMs
    #[command(subcommand)]
    Vm(vm::Vm),
    /// Run a command in a VM
    Exec(exec::Exec),
    /// Run a TypeScript file in a VM (Deno)
    RunTs(run::RunTs),
    /// Run a JavaScript file in a VM (Node.js)
    RunJs(run::RunJs),
    /// Copy files and directories into a VM and out of it
    Cp(cp::Cp),
    /// Build, list, upload and remove guest images
    #[command(subcommand)]
    Image(image::Image),
    /// Keep VMs' disks, list and remove what was kept
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Make, list and revoke API keys (signs in as the administrator)
    ApiKey(api_key::ApiKey),
    /// Have events sent to a URL, list, test and remove that (signs in as the administrator)
    Webhook(webhook::Webhook),
    /// List, sync and change what VMs are linked to; approve calls
    #[command(subcommand)]
    Peers(peers::Peers),
    /// List, export and verify the log of calls between VMs
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Replace a VM's secrets; change the key that those of all VMs are sealed with
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Install Firecracker's official release, verified
    Setup(setup::Setup),
    /// Check what this machine needs, and say how to get it
    Doctor(Box<doctor::Doctor>),
    /// Show the product in a minute: code in a VM, and code that calls an SDK in another VM, which has the credentials
    Demo(demo::Demo),
    /// Measure, each figure beside its floor
    Bench(bench::Bench),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The server's settings, where the command has them (see [`CONFIGURED`]).
    fn config_mut(&mut self) -> Option<&mut Config> {
        match self {
            Self::Up(up) => Some(&mut up.config),
            Self::Serve(serve) => Some(&mut serve.config),
            Self::Doctor(doctor) => Some(&mut doctor.config),
            Self::Secrets(secrets::Secrets::Rekey(rekey)) => Some(&mut rekey.config),
            _ => None,
        }
    }
}

impl Cli {
    /// Reads the command line, the environment and the configuration file; ends the process with a message if they
    /// cannot be used.
    pub(crate) fn parse_all() -> Result<Self, CliError> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let mut command = arguments::without_blank_variables(command()?);
        let said = Said::by(&words, &command);
        if let Some(said) = &said
            && let Some(file) = said.file()
            && let Some(path) = CONFIGURED.into_iter().find(|path| said.is(path))
        {
            command = at(command, path, &|own| Ok(config::with_file(own, file)?))?;
        }
        let read = command.try_get_matches_from_mut(words).and_then(|matches| Self::from_arg_matches(&matches));
        let mut cli = read
            .map_err(|error| said.and_then(|said| said.senseless(&error, &command)).unwrap_or_else(|| error.exit()))?;
        if let Some(config) = cli.command.config_mut() {
            *config = config.clone().validated()?;
        }
        Ok(cli)
    }

    /// What a command does while the process has one thread: a server gives up what it does not need. `up` does not,
    /// since it builds images.
    pub(crate) fn before_threads(&self) -> Result<(), CliError> {
        match &self.command {
            Command::Serve(_) => rds_vmm::privileges::drop_others()
                .map_err(|error| CliError::Failed(format!("cannot give up capabilities: {error}"))),
            _ => Ok(()),
        }
    }

    /// Does what was asked for and gives the exit code.
    pub(crate) async fn run(self) -> Result<u8, CliError> {
        let shared = &self.shared;
        match self.command {
            Command::Up(up) => up.run(shared).await,
            Command::Serve(serve) => serve.run().await,
            Command::Vm(vm) => vm.run(shared).await,
            Command::Exec(exec) => exec.run(shared).await,
            Command::RunTs(run) => run.run(shared).await,
            Command::RunJs(run) => run.run(shared).await,
            Command::Cp(cp) => cp.run(shared).await,
            Command::Image(image) => image.run(shared).await,
            Command::Snapshot(snapshot) => snapshot.run(shared).await,
            Command::ApiKey(key) => key.run(shared).await,
            Command::Webhook(webhook) => webhook.run(shared).await,
            Command::Peers(peers) => peers.run(shared).await,
            Command::Audit(audit) => audit.run(shared).await,
            Command::Secrets(secrets) => secrets.run(shared).await,
            Command::Demo(demo) => demo.run(shared).await,
            Command::Setup(setup) => setup.run(shared).await,
            Command::Doctor(doctor) => doctor.run(shared).await,
            Command::Bench(bench) => bench.run(shared).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "rds", &mut script);
                output::raw(&script);
                Ok(0)
            }
        }
    }
}

impl Shared {
    /// A client of the server that was named, with the key that was given or that this machine's server keeps.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Client::new(&self.url, self.secret(self.api_key.as_ref(), settings::API_KEY_FILE))
    }

    /// A secret that was given, or the one that `rds up` keeps in a file of this machine. That one is for a server of this
    /// machine alone: whoever else is named may not be its server at all.
    pub(crate) fn secret(&self, given: Option<&SecretString>, file: &str) -> Option<String> {
        let given = given.map(|secret| secret.expose_secret().to_owned());
        given.or_else(|| settings::kept(file).filter(|_| is_here(&self.url)))
    }
}

/// Whether a URL leads to this machine, whatever a name server says.
fn is_here(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        None => false,
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Where the server's settings are flags.
const CONFIGURED: [&[&str]; 4] = [&["up"], &["serve"], &["doctor"], &["secrets", "rekey"]];

/// The command line, with the storage root that fits who runs it. A server by itself has the system's.
fn command() -> Result<clap::Command, CliError> {
    let root = settings::default_storage_root().into_os_string();
    let default = |own: clap::Command| Ok(own.mut_arg("storage_root", |arg| arg.default_value(root.clone())));
    let mut others = CONFIGURED.into_iter().filter(|path| *path != ["serve"]);
    others.try_fold(Cli::command(), |command, path| at(command, path, &default))
}

/// Changes the subcommand that these names lead to.
fn at(
    command: clap::Command,
    path: &[&str],
    change: &impl Fn(clap::Command) -> Result<clap::Command, CliError>,
) -> Result<clap::Command, CliError> {
    let Some((name, rest)) = path.split_first() else { return change(command) };
    let own = command.find_subcommand(name).expect("declared above").clone();
    let own = at(own, rest, change)?;
    Ok(command.mut_subcommand(name, |_| own))
}

fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches_from([&["rds"], args].concat())?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_key_is_the_clients_or_the_servers_by_command() {
        let cli = parse(&["vm", "ls", "--api-key", "client", "--json"]).unwrap();
        assert_eq!(cli.shared.api_key.unwrap().expose_secret(), "client");
        assert!(cli.shared.json);
        let Command::Serve(serve) = parse(&["serve", "--api-key", "server"]).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(serve.config.auth.api_key.unwrap().expose_secret(), "server");
    }

    #[test]
    fn what_is_kept_here_is_for_servers_that_are_here() {
        for here in ["http://127.0.0.1:3000", "http://127.1:1/x", "http://[::1]:3000", "http://LOCALHOST:80"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in [
            "http://127.0.0.1@example.org",
            "http://127.0.0.1.example.org",
            "http://localhost.example.org",
            "http://192.168.0.1:3000",
            "http://0.0.0.0:3000",
            "127.0.0.1:3000",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
        let url = "http://example.org".into();
        let shared = Shared { url, api_key: Some("given".into()), json: false };
        assert_eq!(shared.secret(shared.api_key.as_ref(), "none").as_deref(), Some("given"));
    }

    #[test]
    fn the_servers_settings_are_flags_where_they_are_said_to_be() {
        for path in CONFIGURED {
            at(Cli::command(), path, &|own| {
                assert!(own.get_arguments().any(|arg| arg.get_id() == "vm_secret_key"), "{path:?}");
                Ok(own)
            })
            .unwrap();
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_command_of_the_guest() {
        let Command::Exec(exec) = parse(&["exec", "-it", "web", "--", "ls", "-l"]).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(exec.command_line().as_deref(), Some("ls -l"));
    }
}
