//! What the server counts, for `GET /metrics`.
//!
//! The numbers are the process's, not a service's: whoever does something counts it here by one call. A label is always a
//! word of ours, never text of a client or a guest, so the number of series is bounded.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rds_egress::Counters;

use crate::error::Error;
use crate::vms::state::VmState;

/// Media type of what [`render`] writes.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of durations, in seconds: from a call on a warm path to the longest time limit.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Sets of labels whose values are all known when this is compiled.
macro_rules! labels {
    ($($(#[$about:meta])* $name:ident { $($field:ident),+ })+) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
            struct $name { $($field: &'static str),+ }
        )+
    };
}

labels! {
    /// How something ended: `ok`, or the word that the API has for the error.
    ByOutcome { outcome }
    ByStart { started_from }
    ByStep { started_from, step }
    ByRun { kind, outcome }
    ByKind { kind }
    ByClass { status }
    ByState { state }
    ByFate { fate }
    ByDirection { direction }
    ByPart { part }
    ByCopy { copy }
    ByMonitor { version, hypervisor, accelerator }
}

/// A request. The route is a pattern of the server's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRequest {
    method: &'static str,
    route: String,
    status: u16,
}

/// The same without what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    method: &'static str,
    route: String,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;
type Counts<L> = Family<L, Counter<u64, AtomicU64>>;

struct Metrics {
    registry: Registry,
    creates: Counts<ByOutcome>,
    starts: Durations<ByStart>,
    steps: Durations<ByStep>,
    runs: Counts<ByRun>,
    run_seconds: Durations<ByKind>,
    peer_calls: Counts<ByClass>,
    peer_seconds: Histogram,
    seeds: Counts<ByOutcome>,
    snapshots: Counts<ByOutcome>,
    forks: Counts<ByOutcome>,
    refills: Counts<ByOutcome>,
    stood_still: Durations<ByCopy>,
    events: Counts<ByKind>,
    webhook_attempts: Counts<ByOutcome>,
    webhook_seconds: Histogram,
    webhook_deliveries: Counts<ByOutcome>,
    packets: Counts<ByFate>,
    bytes: Counts<ByFate>,
    disks: Counts<ByDirection>,
    channels: Counts<ByDirection>,
    faults: Counts<ByPart>,
    requests: Counts<ByRequest>,
    request_seconds: Durations<ByRoute>,
    vms: Family<ByState, Gauge>,
    pool: Gauge,
    seeds_there: Gauge,
    about: Family<ByMonitor, Gauge>,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("rds");
        let all = &mut registry;
        let monitors = "as their monitors say";
        Self {
            creates: counted(all, "vm_creates", "Creates of VMs, by how they ended"),
            starts: timed(all, "vm_start", "Starts of VMs that came up, by how"),
            steps: timed(all, "vm_start_step", "Steps of the starts of VMs that came up"),
            runs: counted(all, "runs", "Programs that were run in VMs, by how they ended"),
            run_seconds: timed(all, "run", "Programs that were run in VMs, as their guests measured them"),
            peer_calls: counted(all, "peer_calls", "Calls between VMs, by class of their status"),
            peer_seconds: in_unit(all, "peer_call", "Calls between VMs", Unit::Seconds, seconds()),
            seeds: counted(all, "seed_builds", "Seeds that were to be made, by how that ended"),
            snapshots: counted(all, "snapshots_taken", "Snapshots that were to be taken, by how that ended"),
            forks: counted(all, "vm_forks", "Forks that were asked for, by how they ended"),
            refills: counted(all, "pool_refills", "Machines that were to be made for the warm pool, by how that ended"),
            stood_still: timed(all, "vm_stood_still", "How long VMs stood still, or their disks, to be copied"),
            events: counted(
                all,
                "events",
                "What happened to VMs, snapshots, images, keys and webhooks, by kind of event",
            ),
            webhook_attempts: counted(
                all,
                "webhook_attempts",
                "Attempts to send an event to a webhook, by how they ended",
            ),
            webhook_seconds: in_unit(all, "webhook_attempt", "The same", Unit::Seconds, seconds()),
            webhook_deliveries: counted(all, "webhook_deliveries", "Events for webhooks, by what became of them"),
            packets: counted(all, "network_packets", "Packets of VMs, by what became of them"),
            bytes: bytes(all, "network", "The same in bytes"),
            disks: bytes(all, "vm_disk", &format!("What VMs read from their disks and wrote to them, {monitors}")),
            channels: bytes(all, "vm_channel", &format!("What went through the guest channels, {monitors}")),
            faults: counted(all, "monitor_faults", "What monitors could not handle, by the part of the machine"),
            requests: counted(all, "http_requests", "Requests that were answered"),
            request_seconds: timed(all, "http_request", "Requests until the head of their answer"),
            vms: plain(all, "vms", "VMs, by state"),
            pool: plain(all, "pool_machines", "Machines that wait in the warm pool"),
            seeds_there: plain(all, "seeds", "Seeds that VMs can start from"),
            about: plain(all, "server", "This server"),
            registry,
        }
    }
}

/// A metric that is registered.
fn plain<M: prometheus_client::registry::Metric + Clone + Default>(all: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    all.register(name, help, metric.clone());
    metric
}

fn in_unit<M: prometheus_client::registry::Metric + Clone>(
    all: &mut Registry,
    name: &str,
    help: &str,
    unit: Unit,
    metric: M,
) -> M {
    all.register_with_unit(name, help, unit, metric.clone());
    metric
}

fn counted<L: Labels>(all: &mut Registry, name: &str, help: &str) -> Counts<L> {
    plain(all, name, help)
}

fn bytes<L: Labels>(all: &mut Registry, name: &str, help: &str) -> Counts<L> {
    in_unit(all, name, help, Unit::Bytes, Family::default())
}

fn timed<L: Labels>(all: &mut Registry, name: &str, help: &str) -> Durations<L> {
    in_unit(all, name, help, Unit::Seconds, Family::new_with_constructor(seconds as fn() -> Histogram))
}

/// What metrics are told apart by.
trait Labels: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static {}
impl<L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static> Labels for L {}

/// What there is now.
pub(crate) struct Now {
    /// How many VMs are in each state.
    pub vms: Vec<(VmState, usize)>,
    pub pool: usize,
    pub seeds: usize,
    pub monitor: rds_vmm::hypervisor::Description,
}

/// All numbers as text, in the OpenMetrics format that Prometheus reads.
pub(crate) fn render(now: &Now) -> String {
    let metrics = &*METRICS;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    for (state, number) in &now.vms {
        metrics.vms.get_or_create(&ByState { state: state.as_str() }).set(count(*number));
    }
    metrics.pool.set(count(now.pool));
    metrics.seeds_there.set(count(now.seeds));
    let (hypervisor, accelerator) = (now.monitor.name, now.monitor.accelerator);
    let about = ByMonitor { version: env!("CARGO_PKG_VERSION"), hypervisor, accelerator };
    metrics.about.get_or_create(&about).set(1);
    let mut out = String::new();
    text::encode(&mut out, &metrics.registry).expect("a String takes every text");
    out
}

/// Something that is under way. One that is dropped before its end was given up by whoever asked for it.
#[derive(Debug)]
pub(crate) struct UnderWay {
    ended: bool,
    counter: fn(&'static str),
}

impl UnderWay {
    fn new(counter: fn(&'static str)) -> Self {
        Self { ended: false, counter }
    }

    /// Counts its end.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Error>) {
        self.ended = true;
        (self.counter)(word(outcome));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.ended {
            (self.counter)("abandoned");
        }
    }
}

fn word<T>(outcome: &Result<T, Error>) -> &'static str {
    outcome.as_ref().map_or_else(Error::code, |_| "ok")
}

/// A create begins.
pub(crate) fn create() -> UnderWay {
    UnderWay::new(|outcome| {
        METRICS.creates.get_or_create(&ByOutcome { outcome }).inc();
    })
}

/// A VM came up. Times are in milliseconds.
pub(crate) fn started(started_from: &'static str, total_ms: f64, steps: &[(&'static str, f64)]) {
    METRICS.starts.get_or_create(&ByStart { started_from }).observe(total_ms / 1000.0);
    for (step, ms) in steps {
        METRICS.steps.get_or_create(&ByStep { started_from, step }).observe(ms / 1000.0);
    }
}

/// A program ended. `kind` is `exec`, `run-ts` or `run-js`.
pub(crate) fn ran(kind: &'static str, exit_code: i32, duration: Duration) {
    let outcome = match exit_code {
        0 => "ok",
        -1 => "timeout",
        _ => "failed",
    };
    METRICS.runs.get_or_create(&ByRun { kind, outcome }).inc();
    METRICS.run_seconds.get_or_create(&ByKind { kind }).observe(duration.as_secs_f64());
}

/// A program could not be run, or was lost.
pub(crate) fn not_run(kind: &'static str, error: &Error) {
    METRICS.runs.get_or_create(&ByRun { kind, outcome: error.code() }).inc();
}

/// A program was lost, or nobody listened to it any more.
pub(crate) fn run_abandoned(kind: &'static str) {
    METRICS.runs.get_or_create(&ByRun { kind, outcome: "abandoned" }).inc();
}

/// A call between VMs ended with this HTTP status; `None` if it was cancelled.
pub(crate) fn peer_called(status: Option<u16>, duration: Duration) {
    let status = match status {
        None => "cancelled",
        Some(200..300) => "2xx",
        Some(300..500) => "4xx",
        Some(_) => "5xx",
    };
    METRICS.peer_calls.get_or_create(&ByClass { status }).inc();
    METRICS.peer_seconds.observe(duration.as_secs_f64());
}

/// What a VM's monitor has counted.
pub(crate) fn monitor(counts: &rds_vmm::hypervisor::Counts) {
    let add = |family: &Counts<ByDirection>, direction, bytes| {
        if bytes > 0 {
            family.get_or_create(&ByDirection { direction }).inc_by(bytes);
        }
    };
    add(&METRICS.disks, "read", counts.disk_read);
    add(&METRICS.disks, "written", counts.disk_written);
    add(&METRICS.channels, "in", counts.channel_in);
    add(&METRICS.channels, "out", counts.channel_out);
    for (part, faults) in [
        ("disk", counts.disk_faults),
        ("network", counts.network_faults),
        ("channel", counts.channel_faults),
        ("processor", counts.processor_faults),
        ("seccomp", counts.forbidden_calls),
    ] {
        if faults > 0 {
            METRICS.faults.get_or_create(&ByPart { part }).inc_by(faults);
        }
    }
}

/// A seed was made (`ok`), could not be (`failed`), was no longer wanted (`abandoned`) or was found to be no good
/// (`discarded`).
pub(crate) fn seed(outcome: &'static str) {
    METRICS.seeds.get_or_create(&ByOutcome { outcome }).inc();
}

/// A snapshot was taken or not.
pub(crate) fn snapshot<T>(outcome: &Result<T, Error>) {
    METRICS.snapshots.get_or_create(&ByOutcome { outcome: word(outcome) }).inc();
}

/// Forks were made or not.
pub(crate) fn fork<T>(outcome: &Result<T, Error>) {
    METRICS.forks.get_or_create(&ByOutcome { outcome: word(outcome) }).inc();
}

/// A machine for the warm pool was made or not.
pub(crate) fn refill<T>(outcome: &Result<T, Error>) {
    METRICS.refills.get_or_create(&ByOutcome { outcome: word(outcome) }).inc();
}

/// A VM stood still for a copy of its `memory` with its disk, or its disk alone did (`disk`).
pub(crate) fn stood_still(copy: &'static str, duration: Duration) {
    METRICS.stood_still.get_or_create(&ByCopy { copy }).observe(duration.as_secs_f64());
}

/// An event was recorded.
pub(crate) fn event(kind: &'static str) {
    METRICS.events.get_or_create(&ByKind { kind }).inc();
}

/// An event was sent to a webhook, or could not be.
pub(crate) fn webhook_attempt(outcome: &'static str, duration: Duration) {
    METRICS.webhook_attempts.get_or_create(&ByOutcome { outcome }).inc();
    METRICS.webhook_seconds.observe(duration.as_secs_f64());
}

/// An event is no longer to be sent to a webhook: `delivered`, `failed` or `dropped`.
pub(crate) fn webhook_delivery(outcome: &'static str) {
    METRICS.webhook_deliveries.get_or_create(&ByOutcome { outcome }).inc();
}

/// So much more passed VMs' taps, or was dropped there.
pub(crate) fn network(more: &Counters) {
    for (fate, count) in [("sent", more.sent), ("received", more.received), ("dropped", more.dropped)] {
        METRICS.packets.get_or_create(&ByFate { fate }).inc_by(count.packets);
        METRICS.bytes.get_or_create(&ByFate { fate }).inc_by(count.bytes);
    }
}

/// A method as a label. Anybody may make one up.
pub(crate) fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A request was answered. `route` is the pattern that it matched, if any.
pub(crate) fn answered(method: &'static str, route: Option<&str>, status: u16, begun: Instant) {
    let route = route.unwrap_or("none").to_owned();
    METRICS
        .request_seconds
        .get_or_create(&ByRoute { method, route: route.clone() })
        .observe(begun.elapsed().as_secs_f64());
    METRICS.requests.get_or_create(&ByRequest { method, route, status }).inc();
}

#[cfg(test)]
mod tests {
    use rds_egress::Count;

    use super::*;

    fn rendered() -> String {
        let monitor = rds_vmm::hypervisor::Description {
            name: "qemu",
            version: "7.2".into(),
            accelerator: "tcg",
            reason: String::new(),
        };
        render(&Now { vms: vec![(VmState::Running, 3)], pool: 2, seeds: 1, monitor })
    }

    #[test]
    fn what_is_counted_is_shown() {
        drop(create());
        create().end(&Ok::<(), Error>(()));
        create().end(&Err::<(), Error>(Error::conflict("a text of a client")));
        started("pool", 80.0, &[("disk", 1.5)]);
        ran("exec", -1, Duration::from_millis(30));
        not_run("run-ts", &Error::not_found("x"));
        peer_called(Some(409), Duration::from_millis(3));
        webhook_attempt("refused", Duration::from_millis(3));
        webhook_delivery("delivered");
        network(&Counters { sent: Count { packets: 2, bytes: 90 }, ..Counters::default() });
        monitor(&rds_vmm::hypervisor::Counts { disk_read: 7, channel_faults: 2, ..Default::default() });
        answered(method(&Method::from_bytes(b"BREW").unwrap()), None, 405, Instant::now());
        let text = rendered();
        for line in [
            "rds_vm_creates_total{outcome=\"abandoned\"} 1",
            "rds_vm_creates_total{outcome=\"ok\"} 1",
            "rds_vm_creates_total{outcome=\"conflict\"} 1",
            "rds_vm_start_seconds_count{started_from=\"pool\"} 1",
            "rds_vm_start_step_seconds_bucket{le=\"0.0025\",started_from=\"pool\",step=\"disk\"} 1",
            "rds_runs_total{kind=\"exec\",outcome=\"timeout\"} 1",
            "rds_runs_total{kind=\"run-ts\",outcome=\"not_found\"} 1",
            "rds_peer_calls_total{status=\"4xx\"} 1",
            "rds_http_requests_total{method=\"other\",route=\"none\",status=\"405\"} 1",
            "rds_network_packets_total{fate=\"sent\"} 2",
            "rds_network_bytes_total{fate=\"sent\"} 90",
            "rds_webhook_attempts_total{outcome=\"refused\"} 1",
            "rds_webhook_attempt_seconds_count 1",
            "rds_webhook_deliveries_total{outcome=\"delivered\"} 1",
            "rds_vm_disk_bytes_total{direction=\"read\"} 7",
            "rds_monitor_faults_total{part=\"channel\"} 2",
            "rds_vms{state=\"RUNNING\"} 3",
            "rds_pool_machines 2",
            "rds_seeds 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("a text of a client") && text.ends_with("# EOF\n"));
    }
}
