//! Where `rds up` keeps things, and where the other commands look for its key.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::CliError;

/// File in the storage root with the API key that `rds up` made.
pub(crate) const API_KEY_FILE: &str = "api-key";

/// File in the storage root with the administrator's password that `rds up` made.
pub(crate) const ADMIN_PASSWORD_FILE: &str = "admin-password";

/// File in the storage root with the key that `rds up` made to seal VMs' secrets with.
pub(crate) const VM_SECRET_KEY_FILE: &str = "vm-secret-key";

/// Who signs in with that password.
pub(crate) const ADMIN_EMAIL: &str = "admin@localhost";

/// The storage root when nobody names one: the system's for root, the user's own otherwise.
pub(crate) fn default_storage_root() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match (rustix::process::geteuid().is_root(), home()) {
        (false, Some(home)) => home.join(".local/share/run-dat-sheesh"),
        _ => PathBuf::from("/var/lib/run-dat-sheesh"),
    }
}

/// The storage root of this machine's server, as far as a client can tell.
fn storage_root() -> PathBuf {
    let named = std::env::var_os("STORAGE_ROOT").map(PathBuf::from);
    named.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(default_storage_root)
}

/// What `rds up` left in one of its files on this machine, if this user may read it.
pub(crate) fn kept(file: &str) -> Option<String> {
    let text = fs::read_to_string(storage_root().join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The secret in a file; makes it, readable by this user alone, if there is none yet. One that was made is on the disk: what
/// is sealed with it outlives a power cut, too.
pub(crate) fn secret_file(path: &Path, make: impl FnOnce() -> String) -> Result<String, CliError> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        // Another one would not open what the one that was lost has sealed.
        Ok(_) => {
            let path = path.display();
            let what =
                "put back what it held, or remove the file for a new one, which opens nothing that the old one sealed";
            return Err(CliError::Failed(format!("{path} is empty: {what}")));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(CliError::file(path)(error)),
    }
    let secret = make();
    write_new(path, &secret).map_err(CliError::file(path))?;
    Ok(secret)
}

/// Writes a file that this user alone can read: all of it or nothing, and not in the place of another.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut draft = NamedTempFile::new_in(dir)?;
    writeln!(draft, "{secret}")?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path)?;
    File::open(dir)?.sync_all()
}

/// A new API key in the form that the manager gives its own: `rds_<12 hex>_<64 hex>`.
pub(crate) fn new_api_key() -> String {
    format!("rds_{}_{}", hex::encode(rand::random::<[u8; 6]>()), hex::encode(rand::random::<[u8; 32]>()))
}

/// A new password with 128 random bits.
pub(crate) fn new_password() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// A new key to seal secrets with, of 256 random bits.
pub(crate) fn new_vm_secret_key() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        let first = secret_file(&path, new_api_key).unwrap();
        assert_eq!(secret_file(&path, || unreachable!()).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(first.len(), "rds_".len() + 12 + 1 + 64);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_empty_file_is_no_reason_for_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm-secret-key");
        fs::write(&path, "\n").unwrap();
        let refused = secret_file(&path, || unreachable!()).unwrap_err();
        assert!(refused.to_string().contains("vm-secret-key is empty"), "{refused}");
    }

    #[test]
    fn a_key_is_not_put_in_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm-secret-key");
        fs::write(&path, "first").unwrap();
        assert!(write_new(&path, "second").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }
}
