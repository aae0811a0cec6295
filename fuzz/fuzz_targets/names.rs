//! What the resolver and the gate read of guests and of the world: DNS messages, and the first message of a TLS connection.
//!
//! The modules are compiled in here by themselves: they are not part of their crate's surface.

#![no_main]
#![expect(dead_code, reason = "the modules have more than what reads bytes")]

use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/names/src/domains.rs"]
mod domains;
#[path = "../../crates/names/src/gate/hello.rs"]
mod hello;
#[path = "../../crates/names/src/resolver/message.rs"]
mod message;
#[path = "../../crates/names/src/openings.rs"]
mod openings;
#[path = "../../crates/names/src/report.rs"]
mod report;

use hello::{Hello, MAX_HELLO, Reader};
use message::{Found, Question, Read, Step, Verdict};

fuzz_target!(|data: &[u8]| {
    let whole = Reader::default().read(data);
    if data.len() < MAX_HELLO {
        let mut reader = Reader::default();
        let begun = reader.read(&data[..data.len() / 2]);
        assert_eq!(if begun == Hello::Incomplete { reader.read(data) } else { begun }, whole, "in two pieces");
    }
    if let Read::Question(question) = Question::read(data) {
        let found = Found { aliases: vec![question.name().clone()], addresses: vec![[192, 0, 2, 1].into()], ttl: 60 };
        for verdict in [Verdict::Blocked, Verdict::Found(found)] {
            let reply = question.reply(&verdict, question.max_udp());
            assert!(reply.is_none_or(|reply| reply.len() <= question.max_udp()));
        }
        assert!(question.host().is_none_or(|host| !host.as_str().is_empty()));
    }
    if let Ok(reply) = Message::from_vec(data) {
        let name = reply.queries.first().map_or_else(Name::root, |query| query.name.clone());
        if let Step::Done(Verdict::Found(found)) = message::follow(&reply, &name, None) {
            assert!(found.addresses.len() <= 16 && found.aliases.len() <= 8);
        }
    }
});
