//! `rds cp`: files and directories into a VM and out of it.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use reqwest::{Body, Method};
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
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
                progress::step("copy out of the VM", out_of_vm(&client, &id, path, to)).await?
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
        if !packed.skipped.is_empty() {
            eprintln!("left out (links and special files): {}", packed.skipped.join(", "));
        }
        client.upload(id, path, packed.archive).await?;
        return Ok(path.to_owned());
    }
    let path = inside(path, from, client.stat(id, path).await?.is_some_and(|stat| stat.kind == "directory"));
    let file = File::open(from).await.map_err(CliError::file(from))?;
    let executable = is_executable(&metadata).to_string();
    let request = client
        .request(Method::PUT, &["v1", "vms", id, "files", "content"])
        .query(&[("path", path.as_str()), ("executable", &executable)])
        .header("content-type", "application/octet-stream")
        .header("content-length", metadata.len())
        .body(Body::wrap_stream(ReaderStream::new(file)));
    client.send(request).await?;
    Ok(path)
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

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

/// Copies and gives the name of the copy.
async fn out_of_vm(client: &Client, id: &str, path: &str, to: &Path) -> Result<String, CliError> {
    let Some(stat) = client.stat(id, path).await? else {
        return Err(CliError::NotFound(format!("there is no `{path}` in the VM")));
    };
    if stat.kind == "directory" {
        let request = client.request(Method::GET, &["v1", "vms", id, "files", "download"]).query(&[("path", path)]);
        let archive = client.send(request).await?.bytes().await.map_err(|error| client.transport(&error))?;
        archive::unpack(&archive, to)?;
        return Ok(to.display().to_string());
    }
    let to = local_file(path, to);
    let request = client.request(Method::GET, &["v1", "vms", id, "files", "content"]).query(&[("path", path)]);
    let mut pieces = client.send(request).await?.bytes_stream();
    let mut file = File::create(&to).await.map_err(CliError::file(&to))?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| client.transport(&error))?;
        file.write_all(&piece).await.map_err(CliError::file(&to))?;
    }
    file.flush().await.map_err(CliError::file(&to))?;
    Ok(to.display().to_string())
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
