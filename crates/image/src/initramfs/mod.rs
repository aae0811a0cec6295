//! Puts the agent in front of any image: the initramfs that a VM boots from.
//!
//! The agent is `/init` here and not a file of the image, so that any root filesystem works unprepared and the agent is
//! always of the manager's own version.

mod modules;

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::cpio::{Archive, Node};
use crate::digest;
use crate::draft::draft;
use modules::Entry;

/// Largest agent or modules archive that is accepted, in bytes. An initramfs lives in the guest's memory.
pub const MAX_PART_BYTES: u64 = 64 << 20;

/// Writes the initramfs of an agent and an image's kernel modules into `dir` and returns its path.
///
/// The file is called `<sha256>.cpio` after its content, so the same parts always give the same path, and a file that
/// is there is complete. `modules` is the image's `modules` archive, as [`check_modules`] takes it; leave it out for a
/// kernel that has everything built in. Its files are packed anew, so that the kernel reads no header that somebody else
/// wrote. `dir` is made if it is missing. Concurrent calls are safe; nothing is ever overwritten.
///
/// # Errors
/// [`ImageError::Invalid`] when the agent is no static ELF program or the modules are refused, and [`ImageError::Io`]
/// when a file cannot be read or written.
pub fn assemble(agent: &Path, modules: Option<&Path>, dir: &Path) -> Result<PathBuf, ImageError> {
    let program = read_part(agent)?;
    if !program.starts_with(b"\x7fELF") {
        return Err(ImageError::Invalid(format!("{} is no program for Linux", agent.display())));
    }
    let mut archive = Archive::new(Vec::new());
    if let Some(modules) = modules {
        add_modules(&mut archive, modules)?;
    }
    let archive = add_agent(archive, &program).map_err(ImageError::io("pack", agent))?;

    fs::create_dir_all(dir).map_err(ImageError::io("make", dir))?;
    let path = dir.join(format!("{}.cpio", digest::sha256_hex(&archive)));
    if !path.exists() {
        write_new(dir, &path, &archive).map_err(ImageError::io("write", &path))?;
    }
    Ok(path)
}

/// Whether a file is a modules archive that [`assemble`] takes: an uncompressed cpio archive in the `newc` form, no larger
/// than [`MAX_PART_BYTES`], with nothing in it but directories and files called `modules` or below it.
///
/// # Errors
/// [`ImageError::Invalid`] when it is not, with what is wrong, and [`ImageError::Io`] when it cannot be read.
pub fn check_modules(path: &Path) -> Result<(), ImageError> {
    modules::read(open_part(path)?, |_, _| Ok(()))
}

fn add_modules(archive: &mut Archive<Vec<u8>>, path: &Path) -> Result<(), ImageError> {
    modules::read(open_part(path)?, |name, entry| match entry {
        Entry::Directory => archive.add(name, Node::Directory),
        Entry::File(from) => {
            let mut content = Vec::new();
            from.read_to_end(&mut content)?;
            archive.add(name, Node::File { mode: 0o644, content: &content })
        }
    })
}

fn add_agent(mut archive: Archive<Vec<u8>>, program: &[u8]) -> io::Result<Vec<u8>> {
    archive.add("dev", Node::Directory)?;
    // The kernel opens it for PID 1's standard streams before the agent can mount anything.
    archive.add("dev/console", Node::CharDevice { mode: 0o600, major: 5, minor: 1 })?;
    archive.add("dev/null", Node::CharDevice { mode: 0o666, major: 1, minor: 3 })?;
    archive.add("init", Node::File { mode: 0o755, content: program })?;
    archive.finish()
}

fn open_part(path: &Path) -> Result<BufReader<File>, ImageError> {
    let file = File::open(path).map_err(ImageError::io("read", path))?;
    let size = file.metadata().map_err(ImageError::io("read", path))?.len();
    if size > MAX_PART_BYTES {
        let limit = MAX_PART_BYTES >> 20;
        return Err(ImageError::Invalid(format!("{} is larger than {limit} MiB", path.display())));
    }
    Ok(BufReader::new(file))
}

fn read_part(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut content = Vec::new();
    open_part(path)?.read_to_end(&mut content).map_err(ImageError::io("read", path))?;
    Ok(content)
}

/// Makes `path` appear whole or not at all; another writer of the same content may win.
fn write_new(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = draft(dir)?;
    file.write_all(content)?;
    // It holds no secret, and each VM's monitor reads it as a user of its own.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn parts() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (agent, modules) = (dir.path().join("agent"), dir.path().join("modules"));
        fs::write(&agent, b"\x7fELF and so on").unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.add("modules", Node::Directory).unwrap();
        archive.add("modules/order", Node::File { mode: 0o644, content: b"a.ko\n" }).unwrap();
        fs::write(&modules, archive.finish().unwrap()).unwrap();
        (dir, agent, modules)
    }

    #[test]
    fn same_parts_give_the_same_file() {
        let (dir, agent, modules) = parts();
        let out = dir.path().join("out");
        let first = assemble(&agent, Some(&modules), &out).unwrap();
        assert_eq!(first, assemble(&agent, Some(&modules), &out).unwrap());
        assert_ne!(first, assemble(&agent, None, &out).unwrap());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "no temporary file stays");
        let digest = digest::sha256_hex(&fs::read(&first).unwrap());
        assert_eq!(first.file_stem().unwrap().to_str(), Some(digest.as_str()));
    }

    #[test]
    fn the_usual_tool_lists_the_agents_part() {
        let (dir, agent, _) = parts();
        let path = assemble(&agent, None, dir.path()).unwrap();
        let input = Stdio::from(File::open(path).unwrap());
        let output = Command::new("cpio").args(["-t", "--quiet"]).stdin(input).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "dev\ndev/console\ndev/null\ninit\n");
    }

    /// Whoever may write an image must not get to replace the agent.
    #[test]
    fn nothing_of_the_modules_archive_but_names_and_contents_gets_into_the_initramfs() {
        let (dir, agent, modules) = parts();
        let mut archive = fs::read(&modules).unwrap();
        let first = assemble(&agent, Some(&modules), dir.path()).unwrap();
        // Owner and time of the first entry.
        archive[22..30].copy_from_slice(b"000003e8");
        archive[46..54].copy_from_slice(b"6543210f");
        fs::write(&modules, &archive).unwrap();
        assert_eq!(first, assemble(&agent, Some(&modules), dir.path()).unwrap());
        let listed = Command::new("cpio").args(["-t", "--quiet"]).stdin(File::open(&first).unwrap()).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed, "modules\nmodules/order\ndev\ndev/console\ndev/null\ninit\n", "one archive to its end");

        let mut attack = Archive::new(archive);
        attack.add("init", Node::File { mode: 0o755, content: b"another agent" }).unwrap();
        fs::write(&modules, attack.finish().unwrap()).unwrap();
        assert!(matches!(check_modules(&modules), Err(ImageError::Invalid(_))));
        assert!(matches!(assemble(&agent, Some(&modules), dir.path()), Err(ImageError::Invalid(_))));
    }

    #[test]
    fn a_part_that_is_too_large_is_refused_at_once() {
        let (_dir, _, modules) = parts();
        File::options().write(true).open(&modules).unwrap().set_len(MAX_PART_BYTES + 1).unwrap();
        assert!(check_modules(&modules).unwrap_err().to_string().contains("64 MiB"));
    }

    #[test]
    fn refuses_what_is_no_program_and_no_archive() {
        let (dir, agent, modules) = parts();
        assert!(matches!(assemble(&modules, None, dir.path()), Err(ImageError::Invalid(_))));
        assert!(matches!(assemble(&agent, Some(&agent), dir.path()), Err(ImageError::Invalid(_))));
        assert!(matches!(assemble(&dir.path().join("none"), None, dir.path()), Err(ImageError::Io { .. })));
    }
}
