//! What must be on this machine for a VM to run.

use std::path::{Path, PathBuf};

/// The files that a server is given.
#[derive(Debug, Clone)]
pub(crate) struct Prerequisites {
    /// Directory with `kernel`, `rootfs` and `modules`.
    pub(crate) image: PathBuf,
    /// The static guest agent.
    pub(crate) agent: PathBuf,
}

impl Prerequisites {
    /// Finds them, or says in one line what is missing and how to get it.
    pub(crate) fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let from_env = |name: &str, default: PathBuf| std::env::var_os(name).map_or(default, PathBuf::from);
        let image = from_env("RDS_TEST_IMAGE_DIR", target.join("test-image"));
        let agent = from_env("RDS_TEST_AGENT", target.join("x86_64-unknown-linux-gnu/agent/rds-agent"));
        if !on_path("qemu-system-x86_64") {
            return Err("qemu-system-x86_64 is not installed (package qemu-system-x86)".into());
        }
        if let Some(missing) = ["kernel", "rootfs"].iter().find(|file| !image.join(file).is_file()) {
            let image = image.display();
            return Err(format!("{image}/{missing} is missing (make it with `rds image build debian --output {image}`)"));
        }
        if !agent.is_file() {
            return Err(format!("the agent {} is missing (make it with `make agent`)", agent.display()));
        }
        let whole = |path: PathBuf| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
        Ok(Self { image: whole(image)?, agent: whole(agent)? })
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
