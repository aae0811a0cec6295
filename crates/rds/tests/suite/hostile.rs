//! Code that does its worst to its own VM: the VM answers, and the others do not notice.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Api, World, cases};

cases![
    a_fork_bomb_leaves_the_vm_answering,
    a_memory_hog_leaves_the_vm_answering,
    a_full_disk_leaves_the_vm_answering,
    a_disk_without_inodes_starts_again,
    directories_without_end_do_not_outlast_a_start,
    readers_that_stall_leave_the_vm_answering,
    many_open_files_leave_the_vm_answering,
    a_flood_of_output_leaves_the_vm_answering,
    the_agent_is_out_of_reach,
    what_a_user_may_not_do,
];

/// Runs something bad in a VM of its own, then asks whether the VM still answers in time.
async fn survives(world: &World, cmd: &str) -> Value {
    let (api, vm) = world.own_vm(json!({"memMb": 256, "diskSizeMb": 128})).await;
    let reply = api.exec_with(&vm, json!({"cmd": cmd, "timeoutMs": 10_000})).await;
    answers(&api, &vm).await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    reply
}

async fn answers(api: &Api, vm: &str) {
    let begun = Instant::now();
    assert_eq!(api.sh(vm, "echo alive").await, "alive");
    assert!(begun.elapsed().as_secs() < 15, "the answer took {:?}", begun.elapsed());
}

async fn a_fork_bomb_leaves_the_vm_answering(world: &World) {
    survives(world, "f() { f | f & }; f; sleep 5").await;
}

async fn a_memory_hog_leaves_the_vm_answering(world: &World) {
    let reply = survives(world, "node -e 'const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))'").await;
    assert_ne!(reply["exitCode"], 0, "{reply}");
}

async fn a_full_disk_leaves_the_vm_answering(world: &World) {
    let reply =
        survives(world, "head -c 500000000 /dev/zero > full; head -c 500000000 /dev/zero > /tmp/full; ls -s full")
            .await;
    assert!(reply["stderr"].as_str().expect("text").contains("No space left"), "{reply}");
}

/// Stops and starts a VM, which takes no longer than one that nobody has done anything to.
async fn restart(api: &Api, vm: &str) {
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    answers(api, vm).await;
}

async fn a_disk_without_inodes_starts_again(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 256, "diskSizeMb": 128})).await;
    // All of them among the user's files, but for what is to be renewed at the next start.
    let fill = "const fs = require('fs');
        fs.mkdirSync('/workspace/all', { recursive: true });
        const fill = (n) => { for (;;) fs.closeSync(fs.openSync(`/workspace/all/${n++}-${process.pid}`, 'w')) };
        try { fill(0) } catch {}
        fs.unlinkSync('/workspace/all/' + fs.readdirSync('/workspace/all')[0]);
        fs.writeFileSync('/tmp/old', '');
        try { fill(1e6) } catch (error) { console.log(error.code) }";
    for _ in 0..3 {
        let reply = api.exec_with(&vm, json!({"cmd": format!("node -e \"{}\"", fill.replace('`', "\\`").replace('$', "\\$")), "timeoutMs": 120_000})).await;
        assert_eq!(reply["stdout"], "ENOSPC\n", "{reply}");
        restart(&api, &vm).await;
        assert_eq!(api.sh(&vm, "ls -A /tmp").await, "");
    }
    assert_eq!(api.sh(&vm, "rm -r all && touch /tmp/new && ls /tmp").await, "new");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn directories_without_end_do_not_outlast_a_start(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128, "diskSizeMb": 512})).await;
    // A thousand at a time, for a path is no longer than 4096 bytes: what is there goes below a thousand new ones.
    let dig = "cd /tmp; mkdir d; p=$(printf 'd/%.0s' $(seq 1000));
        for i in $(seq 10); do mkdir -p n/$p && mv d n/$p && mv n d; done; df --output=iused / | tail -n 1";
    let dug = api.exec_with(&vm, json!({"cmd": dig, "timeoutMs": 120_000})).await;
    let used = |reply: &Value| reply["stdout"].as_str().and_then(|text| text.trim().parse::<u32>().ok());
    assert!(used(&dug).is_some_and(|used| used > 10_000), "{dug}");
    restart(&api, &vm).await;
    let begun = Instant::now();
    while used(&api.exec(&vm, "df --output=iused / | tail -n 1").await).is_none_or(|used| used > 5000) {
        assert!(begun.elapsed().as_secs() < 120, "they are not removed");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn readers_that_stall_leave_the_vm_answering(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let body = json!({"cmd": "head -c 100000000 /dev/zero | tr '\\0' x", "timeoutMs": 300_000});
        let request = api.request(reqwest::Method::POST, &format!("/v1/vms/{vm}/exec/stream")).json(&body);
        let mut reply = request.send().await.expect("a reply");
        reply.chunk().await.expect("output").expect("output");
        stalled.push(reply);
    }
    // Until nothing more fits anywhere on the way.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    answers(&api, &vm).await;
    drop(stalled);
    answers(&api, &vm).await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn many_open_files_leave_the_vm_answering(world: &World) {
    let node = "const fs = require('fs'); let n = 0; try { for (; n < 100000; n++) fs.openSync('/dev/null') } catch {} console.log(n)";
    survives(world, &format!("ulimit -n unlimited 2>/dev/null; for i in 1 2 3 4; do node -e \"{node}\" & done; wait"))
        .await;
}

async fn a_flood_of_output_leaves_the_vm_answering(world: &World) {
    let reply = survives(world, "yes & yes >&2 & wait").await;
    assert_eq!((&reply["exitCode"], &reply["truncated"]), (&json!(-1), &json!(true)));
}

async fn the_agent_is_out_of_reach(world: &World) {
    let (api, vm) = world.vm().await;
    for cmd in [
        "kill -9 1",
        "kill -9 -1; false",
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "cat /dev/vda",
        "cat /dev/vdb",
        "echo x > /dev/vport0p1",
        "cat /dev/hvc0",
        "ls /dev/virtio-ports/rds.in",
        "cat /dev/mem",
        "dmesg",
        "cat /init",
        "mount -t tmpfs none /mnt",
        "unshare -U true",
        "chroot / true",
        "mknod /tmp/n b 254 0",
        "echo 1 > /proc/sys/kernel/sysrq",
        "reboot -f",
        "su -c true",
    ] {
        let reply = api.exec_with(vm, json!({"cmd": cmd, "timeoutMs": 5000})).await;
        assert_ne!(reply["exitCode"], 0, "`{cmd}` worked: {reply}");
    }
    // Children are their parents' to wait for, not the agent's: `clone` with and without CLONE_PARENT.
    for (flags, code) in [(0x11, 0), (0x8011, 1)] {
        let clone = format!("perl -e 'exit(syscall(56, {flags}, 0, 0, 0, 0) < 0)'");
        let reply = api.exec_with(vm, json!({"cmd": clone, "timeoutMs": 5000})).await;
        assert_eq!(reply["exitCode"], code, "{flags:#x}: {reply}");
    }
    answers(&api, vm).await;
}

async fn what_a_user_may_not_do(world: &World) {
    let (api, vm) = world.vm().await;
    // No process of the agent or of another call is to be seen.
    let seen = api.sh(vm, "ls /proc | grep -c '^[0-9]'").await;
    assert!(seen.parse::<u32>().is_ok_and(|count| count < 20), "{seen} processes are visible");
    assert_eq!(api.sh(vm, "find / -xdev -perm -4000 -type f 2>/dev/null | while read f; do \"$f\" --version >/dev/null 2>&1; done; id -u").await, "1000");
    let no_new =
        api.sh(vm, "grep NoNewPrivs /proc/self/status | tr -dc 0-9; grep CapEff /proc/self/status | tr -dc 0-9").await;
    assert_eq!(no_new, "10000000000000000");
}
