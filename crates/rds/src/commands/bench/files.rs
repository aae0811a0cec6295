//! Uploading and downloading 8 MB, beside tar and gzip in the guest plus a raw copy.

use std::time::Instant;

use reqwest::{Method, RequestBuilder};

use super::figure::{Figure, Limit, median, milliseconds};
use super::run::{command, sample};
use crate::archive;
use crate::client::Client;
use crate::error::CliError;

const SIZE: usize = 8_000_000;
const DIR: &str = "/workspace/bench";

/// Measures both directions by turns with their floors.
pub(super) async fn measure(client: &Client, vm: &str, rounds: usize) -> Result<Vec<Figure>, CliError> {
    let content = content();
    let packed = archive::pack_files(&[("data.txt", &content)]).map_err(CliError::file("archive"))?;
    let (mut up, mut up_floor, mut down, mut down_floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let upload = timed(client, upload(client, vm, &packed)).await?;
        let raw_in = timed(client, write(client, vm, &packed)).await?;
        let unpack = "rm -rf bench-u && mkdir bench-u && tar -xzf bench.tgz -C bench-u";
        let unpacked = sample(client, command(client, vm, unpack)).await?.guest;
        let download = timed(client, get(client, vm, "download", DIR)).await?;
        let packed_there = sample(client, command(client, vm, "tar -czf bench.tgz -C bench .")).await?.guest;
        let raw_out = timed(client, get(client, vm, "content", "/workspace/bench.tgz")).await?;
        if round > 0 {
            up.push(upload);
            up_floor.push(raw_in + unpacked);
            down.push(download);
            down_floor.push(packed_there + raw_out);
        }
    }
    let figure = |name: &str, measured: &[f64], floor: &[f64], floor_is| {
        Figure::beside(name, median(measured), median(floor), floor_is, Limit::Times(1.5))
    };
    Ok(vec![
        figure("upload of 8 MB", &up, &up_floor, "raw copy, then tar -xz in the guest"),
        figure("download of 8 MB", &down, &down_floor, "tar -cz in the guest, then raw copy"),
    ])
}

/// Text that compresses to about three quarters, like base64: neither the best nor the worst case of gzip.
fn content() -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 58) as usize]
    };
    std::iter::repeat_with(next).take(SIZE).collect()
}

/// Milliseconds to the last byte of the reply.
async fn timed(client: &Client, request: RequestBuilder) -> Result<f64, CliError> {
    let begun = Instant::now();
    client.send(request).await?.bytes().await.map_err(|error| client.transport(&error))?;
    Ok(milliseconds(begun))
}

fn upload(client: &Client, vm: &str, packed: &[u8]) -> RequestBuilder {
    let request = client.request(Method::POST, &["v1", "vms", vm, "files", "upload"]).query(&[("dest", DIR)]);
    request.header("content-type", "application/gzip").body(packed.to_vec())
}

fn write(client: &Client, vm: &str, packed: &[u8]) -> RequestBuilder {
    let request = client.request(Method::PUT, &["v1", "vms", vm, "files", "content"]);
    request.query(&[("path", "/workspace/bench.tgz")]).body(packed.to_vec())
}

fn get(client: &Client, vm: &str, call: &str, path: &str) -> RequestBuilder {
    client.request(Method::GET, &["v1", "vms", vm, "files", call]).query(&[("path", path)])
}
