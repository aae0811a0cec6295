//! `rds image`: guest images.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use indicatif::ProgressBar;
use rds_image::debian::{self, BuiltImage};
use rds_image::{Event, Progress};
use reqwest::{Body, Method};
use serde_json::json;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::cp::of_length;
use crate::api;
use crate::cli::Shared;
use crate::client::Client;
use crate::error::CliError;
use crate::signals::Ending;
use crate::{output, progress};

/// What to do with images. An image is named by its id, the beginning of its id, or its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build an image on this machine and give it to the server
    Build {
        /// Which one
        #[command(subcommand)]
        kind: Build,
    },
    /// List images
    #[command(alias = "list")]
    Ls,
    /// Make an image, and upload its files if they are named; prints its id
    Create {
        /// Name
        name: String,
        /// Description
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        files: Files,
        /// Make it the default image
        #[arg(long)]
        default: bool,
    },
    /// Upload files of an image
    Upload {
        /// The image
        image: String,
        #[command(flatten)]
        files: Files,
    },
    /// Make an image the one that VMs get when they name none
    SetDefault {
        /// The image
        image: String,
    },
    /// Remove an image
    #[command(alias = "delete")]
    Rm {
        /// The image
        image: String,
    },
}

/// An image that can be built.
#[derive(Debug, Subcommand)]
pub(crate) enum Build {
    /// Debian stable with git, Node.js, npm, Deno and iproute2
    Debian {
        /// Name
        #[arg(long, default_value = "debian")]
        name: String,
        /// Make it the default image
        #[arg(long)]
        default: bool,
        /// Only build it, into this new directory
        #[arg(long, value_name = "DIR", conflicts_with_all = ["default", "name"])]
        output: Option<PathBuf>,
    },
}

/// Files of an image.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// ELF vmlinux or bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// ext4 file system
    #[arg(long, value_name = "FILE")]
    rootfs: Option<PathBuf>,
    /// cpio archive of the kernel's modules
    #[arg(long, value_name = "FILE")]
    modules: Option<PathBuf>,
    /// zip with vmlinux and rootfs.ext4
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "rootfs"])]
    bundle: Option<PathBuf>,
}

impl Files {
    fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all =
            [("kernel", &self.kernel), ("rootfs", &self.rootfs), ("modules", &self.modules), ("bundle", &self.bundle)];
        all.into_iter().filter_map(|(kind, file)| Some((kind, file.as_deref()?)))
    }
}

impl Image {
    /// Does it.
    pub(crate) async fn run(self, shared: &Shared) -> Result<u8, CliError> {
        if let Self::Build { kind: Build::Debian { output: Some(output), .. } } = &self {
            let built = build(output, &mut Ending::listen()?).await?;
            say(shared.json, &built.dir.display().to_string());
            return Ok(0);
        }
        let client = shared.client()?;
        let id = match self {
            Self::Ls => {
                list(&client, shared.json).await?;
                return Ok(0);
            }
            Self::Build { kind: Build::Debian { name, default, .. } } => {
                let scratch = tempfile::tempdir_in("/var/tmp").map_err(CliError::file("/var/tmp"))?;
                let id = build_debian(&client, scratch.path(), &name).await?;
                finish(&client, id, default).await?
            }
            Self::Create { name, description, files, default } => {
                let id = give(&client, &name, &description, files.named(), &mut Ending::listen()?).await?;
                finish(&client, id, default).await?
            }
            Self::Upload { image, files } => {
                if files.named().next().is_none() {
                    return Err(CliError::Usage(
                        "which file? --kernel, --rootfs, --modules or --bundle names it".into(),
                    ));
                }
                let id = client.find_image(&image).await?;
                upload_all(&client, &id, files.named()).await?;
                id
            }
            Self::SetDefault { image } => finish(&client, client.find_image(&image).await?, true).await?,
            Self::Rm { image } => {
                let id = client.find_image(&image).await?;
                delete(&client, &id).await?;
                id
            }
        };
        say(shared.json, &id);
        Ok(0)
    }
}

fn say(json: bool, id: &str) {
    if json {
        output::json(&json!({"id": id}));
    } else {
        output::line(id);
    }
}

async fn finish(client: &Client, id: String, default: bool) -> Result<String, CliError> {
    if default {
        set_default(client, &id).await?;
    }
    Ok(id)
}

/// Makes an image the default one.
pub(crate) async fn set_default(client: &Client, id: &str) -> Result<(), CliError> {
    client.send(client.request(Method::POST, &["v1", "images", id, "set-default"])).await.map(drop)
}

/// Removes an image.
pub(crate) async fn delete(client: &Client, id: &str) -> Result<(), CliError> {
    client.send(client.request(Method::DELETE, &["v1", "images", id])).await.map(drop)
}

async fn create(client: &Client, name: &str, description: &str) -> Result<String, CliError> {
    let body = json!({"name": name, "description": description});
    let image: api::Image = client.json(client.request(Method::POST, &["v1", "images"]).json(&body)).await?;
    Ok(image.id)
}

/// Builds the Debian image in `scratch` and gives it to the server like any other image; its id.
pub(crate) async fn build_debian(client: &Client, scratch: &Path, name: &str) -> Result<String, CliError> {
    let mut ending = Ending::listen()?;
    let built = build(&scratch.join("debian-image"), &mut ending).await?;
    let (kernel, rootfs, modules) = (built.kernel(), built.rootfs(), built.modules());
    // With the root filesystem it is complete, so that comes last.
    let files = [("kernel", kernel.as_path()), ("modules", &modules), ("rootfs", &rootfs)];
    let description = "Debian stable with git, Node.js, npm and Deno";
    let given = give(client, name, description, files.into_iter(), &mut ending).await;
    let _ = tokio::fs::remove_dir_all(&built.dir).await; // the server has its own copy; a rest is in a scratch directory
    given
}

/// Makes an image of files; its id. One that could not be uploaded whole, for a signal or an error, is removed again.
async fn give(
    client: &Client,
    name: &str,
    description: &str,
    files: impl Iterator<Item = (&str, &Path)>,
    ending: &mut Ending,
) -> Result<String, CliError> {
    let mut made = None;
    let given = async {
        let id = made.insert(create(client, name, description).await?);
        upload_all(client, id, files).await?;
        Ok(id.clone())
    };
    let given = ending.or(given).await;
    if given.is_err()
        && let Some(id) = &made
    {
        let _ = delete(client, id).await; // what went wrong before is what counts
    }
    given
}

async fn upload_all(client: &Client, id: &str, files: impl Iterator<Item = (&str, &Path)>) -> Result<(), CliError> {
    for (kind, file) in files {
        progress::step(&format!("upload the {kind}"), upload(client, id, kind, file)).await?;
    }
    Ok(())
}

async fn upload(client: &Client, id: &str, kind: &str, path: &Path) -> Result<(), CliError> {
    let file = File::open(path).await.map_err(CliError::file(path))?;
    let metadata = file.metadata().await.map_err(CliError::file(path))?;
    let bar = progress::bytes_bar(kind, metadata.len());
    let sent_bar = bar.clone();
    let pieces = ReaderStream::with_capacity(file, 256 * 1024);
    let body = Body::wrap_stream(pieces.inspect_ok(move |piece| sent_bar.inc(piece.len() as u64)));
    let request =
        client.request(Method::PUT, &["v1", "images", id, kind]).header("content-type", "application/octet-stream");
    let sent = client.send(of_length(request, &metadata).body(body)).await;
    bar.finish_and_clear();
    sent.map(drop)
}

async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let images = client.images().await?;
    if json {
        output::json(&images);
        return Ok(());
    }
    let size = |image: &api::Image| image.base_rootfs_bytes.map_or_else(|| "-".into(), output::bytes);
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            vec![
                image.id.clone(),
                output::printable(&image.name),
                if image.is_default { "yes" } else { "" }.into(),
                if image.is_complete() { "complete" } else { "incomplete" }.into(),
                size(image),
                image.created_at.clone(),
            ]
        })
        .collect();
    output::line(&output::table(&["ID", "NAME", "DEFAULT", "FILES", "ROOTFS", "CREATED"], &rows));
    Ok(())
}

/// Builds on a thread of its own; a signal stops the build and removes what it made.
async fn build(output: &Path, ending: &mut Ending) -> Result<BuiltImage, CliError> {
    let show = Arc::new(Show::default());
    let (worker_show, output) = (show.clone(), output.to_owned());
    let mut worker = tokio::task::spawn_blocking(move || debian::build(&output, &*worker_show));
    let outcome = tokio::select! {
        outcome = &mut worker => outcome,
        ended = ending.came() => {
            show.cancelled.store(true, Ordering::Relaxed);
            let _ = worker.await; // it has removed what it made
            show.clear();
            return Err(ended);
        }
    };
    show.clear();
    let built = outcome.map_err(|error| CliError::Failed(error.to_string()))?;
    built.map_err(|error| {
        CliError::Failed(format!("the image was not built: {error}; `rds doctor` shows what is missing"))
    })
}

/// Shows the steps of a build.
#[derive(Default)]
struct Show {
    bar: Mutex<Option<ProgressBar>>,
    cancelled: AtomicBool,
}

impl Show {
    fn replace(&self, bar: Option<ProgressBar>) {
        let mut current = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, bar) {
            old.finish_and_clear();
        }
    }

    fn clear(&self) {
        self.replace(None);
    }

    fn advance(&self, done: u64, total: Option<u64>) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            let text = bar.message();
            let step = text.split(" · ").next().unwrap_or_default();
            let all = total.map(|total| format!(" of {}", output::bytes(total))).unwrap_or_default();
            bar.set_message(format!("{step} · {}{all}", output::bytes(done)));
        }
    }
}

impl Progress for Show {
    fn event(&self, event: Event) {
        match event {
            Event::Started { step } => self.replace(Some(progress::spinner(step))),
            Event::Advanced { done, total } => self.advance(done, total),
            Event::Finished { step, took } => {
                self.clear();
                progress::finished(step, took, true);
            }
        }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
