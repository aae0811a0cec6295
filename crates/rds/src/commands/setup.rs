//! `rds setup`: installs a release of Firecracker and its jailer, of which nothing is believed but its digest.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Args;
use flate2::read::GzDecoder;
use rds_vmm::firecracker;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::cli::Shared;
use crate::error::CliError;
use crate::{output, progress};

/// The release that is installed when nobody names another.
const RELEASE: &str = "1.16.1";

/// SHA-256 of its archive, `firecracker-v1.16.1-x86_64.tgz`, as the release publishes it beside that file.
const SHA256: &str = "382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6";

/// Where its maker publishes releases.
const SOURCE: &str = "https://github.com/firecracker-microvm/firecracker/releases/download";

/// Bytes of an archive and of a program in it, which have 8 and 4 MB.
const MOST: u64 = 64 << 20;

/// Seconds that a download may take.
const LIMIT: &str = "900";

/// What to install, from where, and where to.
#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Take the release's archive from this file; nothing is downloaded
    #[arg(long, conflicts_with = "url")]
    file: Option<PathBuf>,
    /// Take it from this address instead of its maker's [default: the release on github.com]
    #[arg(long)]
    url: Option<String>,
    /// Which release; another one needs --sha256
    #[arg(long, default_value = RELEASE)]
    release: String,
    /// SHA-256 of the release's archive, in hexadecimal, which is then always installed [default: that of the default
    /// release]
    #[arg(long)]
    sha256: Option<String>,
    /// Directory to install into
    #[arg(long, default_value = "/usr/local/bin")]
    dir: PathBuf,
}

impl Setup {
    /// Fetches, verifies, installs. Until all is verified, nothing that is there already is touched.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let wanted = self.digest()?;
        let targets = [firecracker::PROGRAM, firecracker::JAILER].map(|name| self.dir.join(name));
        if let Some(target) = targets.iter().find(|target| target.is_dir()) {
            return Err(CliError::Usage(format!("{} is a directory", target.display())));
        }
        // Programs that say what they are have no digest: whoever names one gets what has it.
        if self.sha256.is_none() && self.is_there(&targets).await {
            report(shared, &self.release, &targets, "is there already");
            return Ok(0);
        }
        let archive = match &self.file {
            Some(file) => bounded(File::open(file).map_err(CliError::file(file))?, "the archive")?,
            None => self.download().await?,
        };
        let found = hex::encode(Sha256::digest(&archive));
        if found != wanted {
            let why = "the archive is not the release: its SHA-256 is";
            return Err(CliError::Failed(format!("{why} {found}, and should be {wanted}. Nothing was installed")));
        }
        let programs = self.unpack(&archive, &targets)?;
        let version = firecracker::version_of(&programs[0], &programs[1]).await;
        let version = version.map_err(|error| CliError::Failed(format!("{error}. Nothing was installed")))?;
        if version.to_string() != self.release {
            return Err(CliError::Failed(format!("the archive holds release {version}. Nothing was installed")));
        }
        for (program, target) in programs.into_iter().zip(&targets) {
            program.persist(target).map_err(|error| CliError::file(target)(error.error))?;
        }
        report(shared, &self.release, &targets, "is installed");
        Ok(0)
    }

    /// The digest that the archive must have.
    fn digest(&self) -> Result<String, CliError> {
        let wanted = match (&self.sha256, self.release.as_str()) {
            (Some(named), _) => named.to_lowercase(),
            (None, RELEASE) => SHA256.to_owned(),
            (None, other) => {
                let usage =
                    format!("name the SHA-256 of release {other} with --sha256; only that of {RELEASE} is known");
                return Err(CliError::Usage(usage));
            }
        };
        let is_digest = wanted.len() == 64 && wanted.bytes().all(|digit| digit.is_ascii_hexdigit());
        let names_release = self.release.split('.').all(|number| number.parse::<u32>().is_ok());
        match (is_digest, names_release) {
            (true, true) => Ok(wanted),
            (false, _) => Err(CliError::Usage("a SHA-256 has 64 hexadecimal digits".into())),
            (_, false) => Err(CliError::Usage("a release is named by numbers, such as 1.16.1".into())),
        }
    }

    async fn is_there(&self, [firecracker, jailer]: &[PathBuf; 2]) -> bool {
        let version = firecracker::version_of(firecracker, jailer).await;
        version.is_ok_and(|version| version.to_string() == self.release)
    }

    /// The archive, fetched by curl: this program speaks no TLS.
    async fn download(&self) -> Result<Vec<u8>, CliError> {
        let url = self.url.clone().unwrap_or_else(|| {
            let release = &self.release;
            format!("{SOURCE}/v{release}/firecracker-v{release}-x86_64.tgz")
        });
        let mut command = Command::new("curl");
        command.args(curl(&url)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let started = command.spawn().map_err(|error| {
            CliError::Failed(format!("cannot start curl: {error} (apt-get install curl), or use --file"))
        });
        let mut curl = started?;
        let (mut stdout, mut stderr) = (curl.stdout.take(), curl.stderr.take());
        let bar = progress::spinner(&format!("download {url}"));
        let read = async {
            let (mut archive, mut words) = (Vec::new(), String::new());
            let pipe = std::io::Error::other("curl has no output");
            let stdout = stdout.as_mut().ok_or(pipe)?;
            let mut piece = vec![0; 64 * 1024];
            loop {
                let count = stdout.read(&mut piece).await?;
                archive.extend_from_slice(piece.get(..count).unwrap_or_default());
                bar.set_message(format!("download {url}: {}", output::bytes(archive.len() as u64)));
                if count == 0 || archive.len() as u64 > MOST {
                    break;
                }
            }
            if let Some(stderr) = &mut stderr
                && archive.len() as u64 <= MOST
            {
                stderr.take(1000).read_to_string(&mut words).await?;
            }
            Ok::<_, std::io::Error>((archive, words))
        };
        let read = read.await;
        bar.finish_and_clear();
        let (archive, words) = read.map_err(CliError::file("curl"))?;
        if archive.len() as u64 > MOST {
            return Err(CliError::Failed(format!("{url} is over {} long: no release is", output::bytes(MOST))));
        }
        let ended = curl.wait().await.map_err(CliError::file("curl"))?;
        if !ended.success() {
            let words = output::printable(words.trim());
            return Err(CliError::Failed(format!("cannot download {url}: {words}. --file takes a file instead")));
        }
        Ok(archive)
    }

    /// Both programs, whole, beside the places where they will be.
    fn unpack(&self, archive: &[u8], targets: &[PathBuf; 2]) -> Result<[TempPath; 2], CliError> {
        std::fs::create_dir_all(&self.dir).map_err(CliError::file(&self.dir))?;
        let unreadable = |error: std::io::Error| CliError::Failed(format!("the archive cannot be read: {error}"));
        let mut found = [None, None];
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        for entry in archive.entries().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path().map_err(unreadable)?.into_owned();
            for (found, target) in found.iter_mut().zip(targets) {
                let name = format!("{}-v{}-x86_64", target.file_name().unwrap_or_default().display(), self.release);
                if path.file_name().is_some_and(|file| file == name.as_str()) && entry.header().entry_type().is_file() {
                    *found = Some(self.program(entry, &name)?);
                    break;
                }
            }
        }
        let [Some(firecracker), Some(jailer)] = found else {
            return Err(CliError::Failed(format!("the archive has not both programs of release {}", self.release)));
        };
        Ok([firecracker, jailer])
    }

    fn program(&self, content: impl Read, name: &str) -> Result<TempPath, CliError> {
        let failed = || CliError::file(&self.dir);
        let content = bounded(content, name)?;
        let mut file = NamedTempFile::with_prefix_in(".rds-setup-", &self.dir).map_err(failed())?;
        file.write_all(&content).map_err(failed())?;
        file.as_file().set_permissions(PermissionsExt::from_mode(0o755)).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        // Closed: a program that somebody may still write to cannot be run.
        Ok(file.into_temp_path())
    }
}

/// The arguments of curl. A redirection leads to TLS alone.
fn curl(url: &str) -> Vec<String> {
    let scheme = if url.starts_with("http://") { "=http" } else { "=https" };
    let words = ["--fail", "--silent", "--show-error", "--location", "--proto", scheme, "--proto-redir", "=https"];
    let words = words.into_iter().chain(["--max-redirs", "5", "--retry", "2", "--max-time", LIMIT, "--", url]);
    words.map(str::to_owned).collect()
}

/// All of it, if that is not more than any release has.
fn bounded(content: impl Read, name: &str) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let failed = |error: std::io::Error| CliError::Failed(format!("{name} cannot be read: {error}"));
    content.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err(CliError::Failed(format!("{name} is over {} long: no release is", output::bytes(MOST))));
    }
    Ok(bytes)
}

fn report(shared: &Shared, release: &str, [firecracker, jailer]: &[PathBuf; 2], how: &str) {
    if shared.json {
        output::json(&json!({"release": release, "firecracker": firecracker, "jailer": jailer}));
    } else {
        output::line(&format!("Firecracker {release} {how}: {}, {}", firecracker.display(), jailer.display()));
    }
}
