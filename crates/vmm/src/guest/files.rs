//! Files of a guest. Paths are passed on as they are: the caller has checked them, the agent checks them again.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rds_protocol::files::{Listing, Stat};
use rds_protocol::routes;
use tokio::time::{Instant, timeout};

use super::body::{Download, pieces, whole};
use super::{GuestClient, GuestError};

/// Largest listing: 10,000 entries with names of 255 bytes, which JSON may write in six characters each.
const LISTING_BYTES: usize = 20 * 1024 * 1024;

impl GuestClient {
    /// Unpacks a tar.gz into the directory `dest`, which is made. `limit` is for the whole call.
    pub async fn put_archive(
        &self,
        dest: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        limit: Duration,
    ) -> Result<(), GuestError> {
        self.empty(Method::PUT, &query(routes::ARCHIVE, &[("dest", dest)]), pieces(archive), limit).await
    }

    /// Reads a directory's contents, or one file, as a tar.gz of at most `bytes` bytes within `limit`.
    pub async fn get_archive(&self, path: &str, bytes: u64, limit: Duration) -> Result<Download, GuestError> {
        self.download(&query(routes::ARCHIVE, &[("path", path)]), bytes, limit).await
    }

    /// Writes a file. Its parents are made. `limit` is for the whole call.
    pub async fn put_content(
        &self,
        path: &str,
        executable: bool,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        limit: Duration,
    ) -> Result<(), GuestError> {
        let executable = if executable { "true" } else { "false" };
        let target = query(routes::CONTENT, &[("path", path), ("executable", executable)]);
        self.empty(Method::PUT, &target, pieces(content), limit).await
    }

    /// Reads a file of at most `bytes` bytes within `limit`.
    pub async fn get_content(&self, path: &str, bytes: u64, limit: Duration) -> Result<Download, GuestError> {
        self.download(&query(routes::CONTENT, &[("path", path)]), bytes, limit).await
    }

    /// What a path is.
    pub async fn stat(&self, path: &str, limit: Duration) -> Result<Stat, GuestError> {
        self.json(Method::GET, &query(routes::STAT, &[("path", path)]), whole(Bytes::new()), limit).await
    }

    /// What a directory holds.
    pub async fn list(&self, path: &str, limit: Duration) -> Result<Listing, GuestError> {
        let target = query(routes::LIST, &[("path", path)]);
        self.json_of(LISTING_BYTES, Method::GET, &target, whole(Bytes::new()), limit).await
    }

    async fn download(&self, target: &str, bytes: u64, limit: Duration) -> Result<Download, GuestError> {
        let begun = Instant::now();
        let reply = timeout(limit, self.send(Method::GET, target, whole(Bytes::new())));
        let body = reply.await.map_err(|_| GuestError::Timeout)??;
        Ok(Download::new(body, bytes, limit.saturating_sub(begun.elapsed())))
    }
}

/// A route with a query. Everything that is not a letter or digit is escaped, so that any decoder reads the same.
fn query(route: &str, fields: &[(&str, &str)]) -> String {
    let mut target = route.to_owned();
    for (index, (name, value)) in fields.iter().enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        write!(target, "{mark}{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)).expect("a string takes it");
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_field() {
        insta::assert_snapshot!(query("/r", &[("path", "/a b&executable=true#?%00/ü\n"), ("executable", "false")]));
    }
}
