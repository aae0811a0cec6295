//! Builds the Debian image into a directory: `cargo run -p rds-image --example debian -- DIRECTORY`.

use std::path::Path;
use std::process::ExitCode;

use rds_image::{Event, Progress, debian};

struct Lines;

impl Progress for Lines {
    fn event(&self, event: Event) {
        match event {
            Event::Started { step } => eprintln!("{step} …"),
            Event::Finished { step, took } => eprintln!("{step}: {:.1} s", took.as_secs_f64()),
            Event::Advanced { .. } => {}
        }
    }
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("which directory?");
        return ExitCode::FAILURE;
    };
    match debian::build(Path::new(&directory), &Lines) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
