//! What a VM's network costs when the VM is made, without a VM: its tap, its address and its rules, beside the same by
//! hand; and whether that grows with the VMs that there are.

use std::time::Instant;

use ipnet::Ipv4Net;
use rds_egress::{Guest, Network, Policy, Settings};

use super::figure::{Figure, Limit, median, milliseconds};
use super::namespace::run;
use crate::error::CliError;

/// VMs that there are when the last ones are measured.
const MANY: u32 = 1_000;

/// Entries in the list of each.
const ENTRIES: u8 = 64;

/// Measures in the namespace that this runs in.
pub(super) async fn measure(rounds: usize) -> Result<Vec<Figure>, CliError> {
    let failed = |error: rds_egress::EgressError| CliError::Failed(error.to_string());
    let subnet = "172.16.0.0/20".parse().map_err(|_| CliError::Failed("a network".into()))?;
    let network = Network::take(&Settings { subnet, monitors: None }).await.map_err(CliError::Failed)?;
    network.restore(Vec::new(), Vec::new()).await.map_err(failed)?;
    let figures = measure_with(&network, rounds).await;
    // All taps at once.
    network.restore(Vec::new(), Vec::new()).await.map_err(failed)?;
    network.end().await.map_err(failed)?;
    figures
}

async fn measure_with(network: &Network, rounds: usize) -> Result<Vec<Figure>, CliError> {
    let failed = |error: rds_egress::EgressError| CliError::Failed(error.to_string());
    let guest = |number| network.guest(number).ok_or_else(|| CliError::Failed("an address".into()));

    let (mut made, mut by_hand, mut first) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each finds nothing in the caches.
    for round in 0..=rounds {
        let hand = make_by_hand().await?;
        let one = make(network, guest(0)?, one_entry()).await.map_err(failed)?;
        network.close(guest(0)?).await.map_err(failed)?;
        let full = make(network, guest(0)?, policy(0)).await.map_err(failed)?;
        network.close(guest(0)?).await.map_err(failed)?;
        if round > 0 {
            by_hand.push(hand);
            made.push(one);
            first.push(full);
        }
    }
    for number in 0..MANY - 1 {
        make(network, guest(number)?, policy(number)).await.map_err(failed)?;
    }
    let mut last = Vec::new();
    for _ in 0..rounds {
        last.push(make(network, guest(MANY - 1)?, policy(MANY - 1)).await.map_err(failed)?);
        network.close(guest(MANY - 1)?).await.map_err(failed)?;
    }
    let name = "network part of a create, p50";
    let by_hand_is = "ip tuntap add, ip addr add and nft -f by hand";
    Ok(vec![
        Figure::beside(name, median(&made), median(&by_hand), by_hand_is, Limit::Times(1.5)),
        Figure::alone(name, "ms", median(&made), Limit::AtMost(10.0)),
        Figure::beside(
            "the same for the 1,000th VM, 64 entries each, p50",
            median(&last),
            median(&first),
            "the first VM with 64 entries",
            Limit::Times(1.5),
        ),
    ])
}

/// A list as long as lists may be; no two VMs have the same.
fn policy(number: u32) -> Policy {
    let [.., high, low] = number.to_be_bytes();
    let allow = (0..ENTRIES).map(|entry| Ipv4Net::from(std::net::Ipv4Addr::new(193, high, low, entry))).collect();
    Policy { outbound: true, allow, ..Policy::default() }
}

fn one_entry() -> Policy {
    Policy { allow: vec![Ipv4Net::from(std::net::Ipv4Addr::new(193, 0, 0, 1))], ..policy(0) }
}

/// Milliseconds that a VM's network takes.
async fn make(network: &Network, guest: Guest, policy: Policy) -> Result<f64, rds_egress::EgressError> {
    let begun = Instant::now();
    network.attach(guest, None).await?;
    network.open(guest, policy).await?;
    Ok(milliseconds(begun))
}

/// What somebody would do who knows one VM and one address.
const BY_HAND: &str = "table ip by-hand {
    chain through {
        type filter hook forward priority 0; policy accept;
        iifname hand0 ip saddr 172.16.15.2 ip daddr 193.0.0.1 accept
        iifname hand0 drop
    }
}
";

/// Milliseconds that the same takes by hand.
async fn make_by_hand() -> Result<f64, CliError> {
    let begun = Instant::now();
    run("ip", "tuntap add dev hand0 mode tap", "").await?;
    run("ip", "addr add 172.16.15.1/32 dev hand0", "").await?;
    run("nft", "-f -", BY_HAND).await?;
    let took = milliseconds(begun);
    run("nft", "delete table ip by-hand", "").await?;
    run("ip", "link delete hand0", "").await?;
    Ok(took)
}
