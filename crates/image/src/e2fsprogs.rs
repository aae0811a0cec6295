//! The programs that make ext4 filesystems and change them without mounting them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::ImageError;
use crate::program::{Call, Program};

const MKE2FS: Program = Program { name: "mke2fs", package: "e2fsprogs", limit: Duration::from_secs(300) };
const DEBUGFS: Program = Program { name: "debugfs", package: "e2fsprogs", limit: Duration::from_secs(300) };

/// Makes an ext4 filesystem with blocks of 4096 bytes that fills the file `disk`.
pub(crate) fn mke2fs(options: &[&str], content: Option<&Path>, disk: &Path) -> Result<(), ImageError> {
    let mut args: Vec<OsString> = ["-q", "-F", "-t", "ext4", "-b", "4096"].map(OsString::from).into();
    args.extend(options.iter().map(OsString::from));
    if let Some(content) = content {
        args.extend(["-d".into(), content.into()]);
    }
    args.push(disk.into());
    MKE2FS.run(args)?;
    Ok(())
}

/// Carries out the commands of a script on the unmounted filesystem in `disk`.
pub(crate) fn debugfs(commands: &str, script: &Path, disk: &Path) -> Result<(), ImageError> {
    fs::write(script, commands).map_err(ImageError::io("write", script))?;
    let args = vec!["-w".into(), "-f".into(), script.into(), disk.into()];
    let (_, errors) = DEBUGFS.stream(&Call { args, ..Call::default() }, |_| Ok(()))?;
    // It ends with 0 even when a command failed, and says so after the line with its version.
    let errors = String::from_utf8_lossy(&errors);
    match errors.lines().find(|line| !line.starts_with("debugfs ") && !line.is_empty()) {
        Some(line) => Err(ImageError::Program { program: DEBUGFS.name, message: line.to_owned() }),
        None => Ok(()),
    }
}
