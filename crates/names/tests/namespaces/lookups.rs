//! What guests are told of names.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::lab::{Lab, RESOLVER, UPSTREAM, at, inside, policy};
use rds_lab::servers;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Asks by UDP, from the namespace that this runs in.
pub(crate) async fn ask(name: &str, kind: RecordType) -> Option<Message> {
    ask_at(RESOLVER, name, kind).await
}

async fn ask_at(server: &str, name: &str, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(at(server)).await.unwrap();
    let query = query(name, kind);
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 2048];
    let length = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut buffer)).await.ok()?.ok()?;
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.metadata.id, query.metadata.id);
    Some(reply)
}

fn addresses(reply: &Message) -> Vec<Ipv4Addr> {
    let address = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    reply.answers.iter().filter_map(address).collect()
}

/// The code and the addresses of an answer.
async fn told(lab: &Lab, name: &'static str) -> (ResponseCode, Vec<Ipv4Addr>) {
    let reply = lab.guest.run(async move || ask(name, RecordType::A).await).await.unwrap();
    (reply.metadata.response_code, addresses(&reply))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_names_are_answered_and_no_others() {
    if !inside("lookups::allowed_names_are_answered_and_no_others") {
        return;
    }
    let lab = Lab::new(&[
        "api.example",
        "alias.example",
        "halfway.example",
        "missing.example",
        "long.example",
        "*.wild.example",
    ]);
    let seen = servers::start(&lab.world).await;
    let ok = |last| (ResponseCode::NoError, vec![Ipv4Addr::new(203, 0, 113, last)]);
    assert_eq!(told(&lab, "API.Example.").await, ok(10));
    assert_eq!(told(&lab, "alias.example.").await, ok(11));
    assert_eq!(told(&lab, "halfway.example.").await, ok(11));
    assert_eq!(told(&lab, "x.wild.example.").await, ok(10));
    assert_eq!(told(&lab, "long.example.").await.1.len(), 16);
    assert_eq!(told(&lab, "missing.example.").await, (ResponseCode::NXDomain, vec![]));
    let before = seen.all().len();
    for refused in ["other.example.", "wild.example.", "cdn.example.", "10.0.16.172.in-addr.arpa.", "."] {
        assert_eq!(told(&lab, refused).await, (ResponseCode::NXDomain, vec![]), "{refused}");
    }
    for kind in [RecordType::AAAA, RecordType::TXT, RecordType::HTTPS, RecordType::ANY, RecordType::MX] {
        let reply = lab.guest.run(async move || ask("api.example.", kind).await).await.unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
    assert_eq!(seen.all().len(), before, "the world hears nothing of these");
    assert!(lab.was_told(&["vm: ", "other.example refused"]), "{:?}", lab.all_told());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_lead_to_private_places_are_refused() {
    if !inside("lookups::names_that_lead_to_private_places_are_refused") {
        return;
    }
    let lab = Lab::new(&["*.example"].map(|_| "rebind.example"));
    let names = ["rebind.example", "metadata.example", "host.example", "guest.example", "smuggled.example"];
    lab.names.set(crate::lab::GUEST, "vm", policy(&names));
    let _seen = servers::start(&lab.world).await;
    for refused in ["rebind.example.", "metadata.example.", "host.example.", "guest.example."] {
        assert_eq!(told(&lab, refused).await, (ResponseCode::NXDomain, vec![]), "{refused}");
    }
    assert!(lab.was_told(&["metadata.example", "169.254.169.254"]));
    assert_eq!(
        told(&lab, "smuggled.example.").await.1,
        [Ipv4Addr::new(203, 0, 113, 10)],
        "what was not asked is not told"
    );

    let mut trusting = policy(&names);
    trusting.trusted = vec!["10.9.0.0/16".parse().unwrap()];
    lab.names.set(crate::lab::GUEST, "vm", trusting);
    assert_eq!(told(&lab, "rebind.example.").await.1.len(), 2, "what the VM may reach anyway is no harm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_served_and_odd_bytes_do_no_harm() {
    if !inside("lookups::tcp_is_served_and_odd_bytes_do_no_harm") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let _seen = servers::start(&lab.world).await;
    let replies = lab
        .guest
        .run(async || {
            let mut stream = TcpStream::connect(at(RESOLVER)).await.unwrap();
            let mut replies = Vec::new();
            for name in ["api.example.", "other.example."] {
                let query = query(name, RecordType::A).to_vec().unwrap();
                stream.write_u16(query.len() as u16).await.unwrap();
                stream.write_all(&query).await.unwrap();
                let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut reply).await.unwrap();
                replies.push(Message::from_vec(&reply).unwrap());
            }
            let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
            for length in [0, 1, 11, 12, 13, 500, 1500] {
                socket.send_to(&vec![0x5a; length], at(RESOLVER)).await.unwrap();
                let mut garbage = TcpStream::connect(at(RESOLVER)).await.unwrap();
                drop(garbage.write_all(&vec![0xff; length]).await);
            }
            replies
        })
        .await;
    assert_eq!((addresses(&replies[0]).len(), replies[1].metadata.response_code), (1, ResponseCode::NXDomain));
    assert_eq!(told(&lab, "api.example.").await.1.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_in_names_does_not_get_far() {
    if !inside("lookups::data_in_names_does_not_get_far") {
        return;
    }
    let lab = Lab::new(&["*.wild.example"]);
    let seen = servers::start(&lab.world).await;
    let refused = lab
        .guest
        .run(async || {
            let mut refused = 0;
            for number in 0..150 {
                let name = format!("{}{number}.wild.example.", "d".repeat(55));
                let code = ask(&name, RecordType::A).await.unwrap().metadata.response_code;
                refused += u32::from(code == ResponseCode::Refused);
            }
            refused
        })
        .await;
    let carried = seen.count("ddd");
    assert!(refused > 60 && (60..=90).contains(&carried), "{refused} refused, {carried} carried");
    assert!(lab.was_told(&["they look like data"]));
    let flood = lab
        .guest
        .run(async || {
            let mut refused = 0;
            for _ in 0..400 {
                let reply = ask("no.example.", RecordType::A).await;
                refused += u32::from(reply.is_none_or(|reply| reply.metadata.response_code == ResponseCode::Refused));
            }
            refused
        })
        .await;
    assert!(flood > 100 && lab.was_told(&["too many"]), "{flood}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_question_counts_as_one() {
    if !inside("lookups::what_is_no_question_counts_as_one") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let _seen = servers::start(&lab.world).await;
    // A lookup comes back every 20 ms. A busy machine takes longer than that from the last datagram to the question, at
    // times; so there are some questions, by far too few to use the budget up themselves.
    let refused = lab
        .guest
        .run(async || {
            let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
            for _ in 0..20 {
                for _ in 0..40 {
                    socket.send_to(&[0x5a; 40], at(RESOLVER)).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                let code = ask("api.example.", RecordType::A).await.unwrap().metadata.response_code;
                if code == ResponseCode::Refused {
                    return true;
                }
            }
            false
        })
        .await;
    assert!(refused && lab.was_told(&["too many"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_this_host_has_besides_is_its_own() {
    if !inside("lookups::an_address_that_this_host_has_besides_is_its_own") {
        return;
    }
    let lab = Lab::new(&["host.example", "second.example"]);
    let _seen = servers::start(&lab.world).await;
    assert_eq!(told(&lab, "second.example.").await.1.len(), 1);
    rds_lab::ip("route del 203.0.113.11/32");
    for address in ["203.0.113.1/24", "203.0.113.11/24"] {
        rds_lab::ip(&format!("addr add {address} dev up0"));
    }
    for own in ["host.example.", "second.example."] {
        assert_eq!(told(&lab, own).await, (ResponseCode::NXDomain, vec![]), "{own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_entry_is_not_answered() {
    if !inside("lookups::who_has_no_entry_is_not_answered") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let _seen = servers::start(&lab.world).await;
    assert_eq!(told(&lab, "api.example.").await.1.len(), 1);
    lab.names.remove(crate::lab::GUEST);
    assert!(lab.guest.run(async || ask("api.example.", RecordType::A).await).await.is_none());
}

/// The price of a lookup, beside the same lookup without anything between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_takes_little_more_than_upstream() {
    if !inside("lookups::a_lookup_takes_little_more_than_upstream") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let _seen = servers::start(&lab.world).await;
    let median = async |server: &str| {
        let mut times = Vec::new();
        for _ in 0..101 {
            let begun = Instant::now();
            ask_at(server, "api.example.", RecordType::A).await.unwrap();
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times[50]
    };
    let by_hand = median(UPSTREAM).await;
    let through = lab.guest.run(async move || {
        let mut times = Vec::new();
        for _ in 0..101 {
            let begun = Instant::now();
            ask("api.example.", RecordType::A).await.unwrap();
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times[50]
    });
    let through = through.await;
    println!("upstream {by_hand:?}, through the resolver {through:?}");
    assert!(through < by_hand + Duration::from_millis(20), "{through:?} against {by_hand:?}");
}
