//! What a server may do on its host, and what its VMs' processes may.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use crate::harness::{World, cases, create, lab};

cases![
    a_server_leaves_no_core_dump,
    a_server_of_roots_keeps_what_it_needs needs "network namespaces",
    a_server_that_is_not_root_lacks_nothing needs "network namespaces",
];

/// Nobody's on any host, as far as one can tell.
const USER: u32 = 251_003;

/// The fields of every thread's status.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let field = |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.to_owned()));
    status.map(|status| status.lines().filter_map(field).collect()).collect()
}

async fn a_server_leaves_no_core_dump(world: &World) {
    let server = world.server().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("every process has it");
    let limits: Vec<&str> = core.split_whitespace().take(2).collect();
    assert!(limits == ["1"; 2] || limits == ["0"; 2], "{core}");
}

async fn a_server_of_roots_keeps_what_it_needs(world: &World) {
    let server = world.own_server(&[("ENABLE_SNAPSHOTS", "false")]).await;
    let needed = format!("{:016x}", rds_vmm::privileges::mask());
    for thread in threads(server.pid()) {
        assert_eq!([&thread["CapPrm"], &thread["CapEff"], &thread["CapBnd"]], [&needed; 3], "{}", thread["Name"]);
    }
}

async fn a_server_that_is_not_root_lacks_nothing(world: &World) {
    let settings = [("VM_SUBNET", "172.17.99.0/24")];
    let test = "privileges::a_server_that_is_not_root_lacks_nothing";
    let Some(lab) = lab::enter_as(world, test, Some(USER), &settings).await else { return };
    let (server, api) = (&lab.server, lab.server.api());
    let needed = format!("{:016x}", rds_vmm::privileges::mask());
    for thread in threads(server.pid()) {
        assert!(thread["Uid"].starts_with(&format!("{USER}\t{USER}\t")), "{thread:?}");
        assert_eq!([&thread["CapPrm"], &thread["CapEff"], &thread["CapBnd"]], [&needed; 3], "{}", thread["Name"]);
    }
    let vm = create(&api, json!({"memMb": 128, "outboundInternet": true, "allowIps": ["10.0.0.0/8"]})).await;
    assert_eq!(api.sh(&vm, "echo works; cat /sys/class/net/eth0/operstate").await.lines().next(), Some("works"));
    let processes = server.vm_processes();
    assert_eq!(processes.len(), 1);
    for thread in threads(processes[0]) {
        assert!(!thread["Uid"].contains(&USER.to_string()) && !thread["Uid"].contains("\t0"), "{thread:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(thread[set], "0000000000000000", "{set} of {}", thread["Name"]);
        }
    }
    // What a fork copies is the VM's user's, not the server's.
    let forks = api.post(&format!("/v1/vms/{vm}/fork"), &json!({"count": 1})).await.status(201).json();
    let fork = forks["vms"][0]["id"].as_str().expect("an id");
    assert_eq!(api.sh(fork, "echo forked").await.trim(), "forked");
    api.remove(&[fork]).await;
    api.post(&format!("/v1/vms/{vm}/stop"), &json!({})).await.status(204);
    api.post(&format!("/v1/vms/{vm}/start"), &json!({})).await.status(204);
    assert_eq!(api.sh(&vm, "echo again").await.trim(), "again");
    api.delete(&format!("/v1/vms/{vm}")).await;
    server.assert_no_trace().await;
}
