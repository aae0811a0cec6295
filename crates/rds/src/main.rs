//! `rds`: the manager, and the command line that drives one over its API.

mod api;
mod archive;
mod arguments;
mod cli;
mod client;
mod commands;
mod error;
mod output;
mod progress;
mod settings;
mod signals;
mod sse;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::Cli::parse_all().and_then(|cli| {
        cli.before_threads()?;
        let runtime = tokio::runtime::Runtime::new().expect("the system can start threads");
        let outcome = runtime.block_on(cli.run());
        runtime.shutdown_background(); // a read of standard input may still be waiting
        outcome.and_then(|code| output::finish().map(|()| code))
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
