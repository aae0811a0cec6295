//! Files in the making, which get their name when they are whole.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// What the names of unfinished files begin with.
const PREFIX: &str = ".new-";

/// Begins a file that is to be in `dir`. It is removed unless it is persisted; only a crash leaves it.
pub(crate) fn draft(dir: &Path) -> io::Result<NamedTempFile> {
    NamedTempFile::with_prefix_in(PREFIX, dir)
}

/// Removes what a crash left unfinished in `dir`; nothing may be in the making there. A directory that does not exist
/// has nothing.
///
/// # Errors
/// When the directory cannot be read or a file not be removed.
pub fn remove_drafts(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unfinished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (_, left) = draft(dir.path()).unwrap().keep().unwrap();
        let whole = dir.path().join("1.ext4");
        fs::write(&whole, "").unwrap();
        remove_drafts(dir.path()).unwrap();
        assert!(!left.exists() && whole.exists());
        remove_drafts(&dir.path().join("none")).unwrap();
    }
}
