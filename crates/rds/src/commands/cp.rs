//! `rds cp`: files and directories into a VM and out of it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::json;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::{archive, output, progress};

/// What to copy where. One side is VM:PATH, with PATH under /workspace.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// A local path, or VM:PATH
    from: String,
    /// VM:PATH, or a local path
    to: String,
    /// Most that is taken out of a VM, unpacked
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    limit: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Here(&'a Path),
    There { vm: &'a str, path: &'a str },
}

/// A VM's name before a colon and an absolute path make a place in a VM.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((vm, path)) if !vm.is_empty() && !vm.contains('/') => Place::There { vm, path },
        _ => Place::Here(Path::new(text)),
    }
}

impl Cp {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        let client = shared.client()?;
        let said = match (place(&self.from), place(&self.to)) {
            (Place::Here(from), Place::There { vm, path }) => {
                let id = client.find_vm(vm).await?;
                progress::step("copy into the VM", into_vm(&client, from, &id, path)).await?
            }
            (Place::There { vm, path }, Place::Here(to)) => {
                let id = client.find_vm(vm).await?;
                progress::step("copy out of the VM", out_of_vm(&client, &id, path, to, u64::from(self.limit) << 20))
                    .await?
            }
            _ => {
                return Err(CliError::Usage(
                    "one of the two places must be VM:/workspace/…, the other a local path".into(),
                ));
            }
        };
        if shared.json {
            output::json(&json!({"from": self.from, "to": said}));
        }
        Ok(0)
    }
}

/// Copies and gives the name of the copy.
async fn into_vm(client: &Client, from: &Path, id: &str, path: &str) -> Result<String, CliError> {
    let metadata = tokio::fs::metadata(from).await.map_err(CliError::file(from))?;
    if metadata.is_dir() {
        let packed = archive::pack(from)?;
        packed.left_out.told().iter().for_each(|told| output::note(told));
        client.upload(id, path, packed.archive).await?;
        return Ok(path.to_owned());
    }
    let path = inside(path, from, client.stat(id, path).await?.is_some_and(|stat| stat.kind == "directory"));
    let file = File::open(from).await.map_err(CliError::file(from))?;
    let executable = is_executable(&metadata).to_string();
    let request = client
        .request(Method::PUT, &["v1", "vms", id, "files", "content"])
        .query(&[("path", path.as_str()), ("executable", &executable)])
        .header("content-type", "application/octet-stream");
    let request = of_length(request, &metadata);
    client.send(request.body(Body::wrap_stream(ReaderStream::new(file)))).await?;
    Ok(path)
}

/// A request whose body is a file. A pipe, a device and much below `/proc` say that they are empty and are not.
pub(super) fn of_length(request: RequestBuilder, file: &fs::Metadata) -> RequestBuilder {
    if file.is_file() && file.len() > 0 { request.header("content-length", file.len()) } else { request }
}

/// The place of a file whose destination may be a directory.
fn inside(path: &str, from: &Path, is_dir: bool) -> String {
    match from.file_name() {
        Some(name) if is_dir || path.ends_with('/') => {
            format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy())
        }
        _ => path.to_owned(),
    }
}

fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

/// Copies and gives the name of the copy.
async fn out_of_vm(client: &Client, id: &str, path: &str, to: &Path, most: u64) -> Result<String, CliError> {
    let Some(stat) = client.stat(id, path).await? else {
        return Err(CliError::NotFound(format!("there is no `{path}` in the VM")));
    };
    let get = |what| client.request(Method::GET, &["v1", "vms", id, "files", what]).query(&[("path", path)]);
    if stat.kind == "directory" {
        fs::create_dir_all(to).map_err(CliError::file(to))?;
        // Nothing is unpacked before all of it is there.
        let mut archive = tempfile::tempfile_in(to).map_err(CliError::file(to))?;
        receive(client, get("download"), &mut archive, to, most).await?;
        archive.rewind().map_err(CliError::file(to))?;
        let left_out = archive::unpack(archive, to, most)?;
        left_out.told().iter().for_each(|told| output::note(told));
        return Ok(to.display().to_string());
    }
    let to = local_file(path, to);
    // As an archive is unpacked.
    let new_mode = if stat.mode & 0o100 == 0 { 0o644 } else { 0o755 };
    save(client, get("content"), &to, new_mode, most).await?;
    Ok(to.display().to_string())
}

/// Makes a file of what a reply carries. What is there stays as it is until all has come, and its mode after that.
async fn save(client: &Client, request: RequestBuilder, to: &Path, new_mode: u32, most: u64) -> Result<(), CliError> {
    let there = fs::metadata(to).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        // A device or a pipe is for writing to, not for replacing.
        let mut file = OpenOptions::new().write(true).open(to).map_err(CliError::file(to))?;
        return receive(client, request, &mut file, to, most).await;
    }
    // A link stays, and what it leads to is replaced.
    let target = fs::canonicalize(to).unwrap_or_else(|_| to.to_owned());
    let mode = there.map_or(new_mode, |there| there.permissions().mode() & 0o777);
    let beside = target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new()
        .prefix(".rds-cp-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(beside)
        .map_err(CliError::file(to))?;
    tokio::select! {
        received = receive(client, request, &mut draft, to, most) => received?,
        _ = tokio::signal::ctrl_c() => return Err(CliError::Failed("interrupted".into())), // which removes the draft
    }
    draft.persist(&target).map(drop).map_err(|error| CliError::file(to)(error.error))
}

/// Writes what a reply carries, unless it is more than `most` bytes.
async fn receive(
    client: &Client,
    request: RequestBuilder,
    file: &mut impl Write,
    to: &Path,
    most: u64,
) -> Result<(), CliError> {
    let mut pieces = client.send(request).await?.bytes_stream();
    let mut left = most;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.transport(&error))?;
        let rest = left.checked_sub(piece.len() as u64);
        left = rest.ok_or_else(|| CliError::Failed(format!("{}: {}", to.display(), archive::refusal(most))))?;
        file.write_all(&piece).map_err(CliError::file(to))?;
    }
    file.flush().map_err(CliError::file(to))
}

fn local_file(path: &str, to: &Path) -> PathBuf {
    match Path::new(path).file_name() {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_vm_has_a_name_before_its_colon() {
        assert_eq!(place("web:/workspace/a"), Place::There { vm: "web", path: "/workspace/a" });
        assert_eq!(place("./a:b"), Place::Here(Path::new("./a:b")));
        assert_eq!(place("a/b"), Place::Here(Path::new("a/b")));
        assert_eq!(place(":x"), Place::Here(Path::new(":x")));
    }

    #[test]
    fn a_file_goes_into_a_directory_or_becomes_the_name() {
        assert_eq!(inside("/workspace/", Path::new("x/a.txt"), false), "/workspace/a.txt");
        assert_eq!(inside("/workspace/d", Path::new("a.txt"), true), "/workspace/d/a.txt");
        assert_eq!(inside("/workspace/b.txt", Path::new("a.txt"), false), "/workspace/b.txt");
    }
}
