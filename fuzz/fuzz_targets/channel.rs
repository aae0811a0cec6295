//! A guest that answers the greeting and then sends anything: no call panics, and each ends with an answer or an error.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rds_protocol::exec::{Program, Start, Stdin};
use rds_protocol::link::{History, accept};
use rds_vmm::GuestClient;
use tokio::io::{AsyncWriteExt, duplex};

const LIMIT: Duration = Duration::from_secs(5);

fuzz_target!(|wire: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (host, mut guest) = duplex(64 * 1024);
        let talk = async {
            accept(&mut guest).await.expect("the greeting comes");
            let _ = guest.write_all(wire).await;
            let _ = guest.shutdown().await;
            let _ = tokio::io::copy(&mut guest, &mut tokio::io::sink()).await;
        };
        let call = async {
            let client =
                GuestClient::over(Box::new(host), History::Fresh, LIMIT).await.expect("the greeting is answered");
            let start = Start {
                program: Program::Shell { cmd: String::new() },
                cwd: None,
                env: BTreeMap::new(),
                timeout_ms: None,
                stdin: Stdin::Closed,
                output_limit: None,
            };
            let _ = tokio::join!(client.health(LIMIT), client.run(start, LIMIT), client.list("/", LIMIT));
        };
        tokio::join!(talk, call);
    });
});
