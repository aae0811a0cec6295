//! Questions and replies, hostile ones too.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, edns: bool) -> Question {
    let mut message = upstream_query(&name(text));
    message.edns = message.edns.filter(|_| edns);
    match Question::read(&message.to_vec().unwrap()) {
        Read::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn alias(owner: &str, to: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
}

fn address(owner: &str, last: u8, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn reply(records: Vec<Record>) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.add_answers(records);
    message
}

#[test]
fn a_chain_of_aliases_is_followed_and_nothing_beside_it() {
    let reply = reply(vec![
        address("other.example.", 9, 5),
        alias("b.example.", "c.example.", 40),
        alias("a.example.", "B.example.", 30),
        address("c.example.", 1, 60),
        address("c.example.", 2, 50),
    ]);
    let Step::Done(Verdict::Found(found)) = follow(&reply, &name("a.example."), None) else { panic!() };
    assert_eq!(found.addresses, [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]);
    assert_eq!((found.aliases.len(), found.ttl), (2, 30));
}

#[test]
fn a_chain_that_ends_early_goes_on_and_one_in_a_circle_fails() {
    let early = reply(vec![alias("a.example.", "b.example.", 30)]);
    let Step::Onward(found, next) = follow(&early, &name("a.example."), None) else { panic!() };
    assert_eq!(next, name("b.example."));
    let rest = reply(vec![address("b.example.", 1, 60)]);
    let Step::Done(Verdict::Found(found)) = follow(&rest, &next, Some(found)) else { panic!() };
    assert_eq!((found.aliases.len(), found.addresses.len(), found.ttl), (1, 1, 30));

    let circle = reply(vec![alias("a.example.", "b.example.", 1), alias("b.example.", "a.example.", 1)]);
    assert_eq!(follow(&circle, &name("a.example."), None), Step::Done(Verdict::Failed));
    assert_eq!(follow(&reply(vec![]), &name("a.example."), None), Step::Done(Verdict::Empty));
}

#[test]
fn replies_say_what_the_verdict_is() {
    let asked = question("a.example.", true);
    for (verdict, code) in [
        (Verdict::Blocked, ResponseCode::NXDomain),
        (Verdict::Prohibited, ResponseCode::Refused),
        (Verdict::Failed, ResponseCode::ServFail),
        (Verdict::Empty, ResponseCode::NoError),
    ] {
        let reply = Message::from_vec(&asked.reply(&verdict, 1232).unwrap()).unwrap();
        assert_eq!(reply.metadata.response_code, code);
        assert!(reply.answers.is_empty() && reply.metadata.recursion_available);
        let more = reply.edns.unwrap().options().options.len();
        assert_eq!(more, usize::from(matches!(verdict, Verdict::Blocked | Verdict::Prohibited)));
    }
}

#[test]
fn what_does_not_fit_is_left_out() {
    let found = Found {
        addresses: (0..16).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect(),
        aliases: (0..8).map(|n| name(&format!("{n}{}.example.", "x".repeat(60)))).collect(),
        ttl: 7,
    };
    let asked = question("a.example.", false);
    assert_eq!(asked.max_udp(), 512);
    let short = asked.reply(&Verdict::Found(found.clone()), asked.max_udp()).unwrap();
    assert!(short.len() <= 512 && Message::from_vec(&short).unwrap().metadata.truncation);
    let long = Message::from_vec(&asked.reply(&Verdict::Found(found), 65_535).unwrap()).unwrap();
    assert_eq!((long.answers.len(), long.metadata.truncation), (24, false));
    assert!(long.answers.iter().all(|record| record.ttl == 7));
}

#[test]
fn names_that_no_host_has_are_none() {
    for odd in ["a\\.b.example.", ".", "1.2.0.192."] {
        assert_eq!(host(&name(odd)), None, "{odd}");
    }
    assert_eq!(host(&Name::from_labels([b"a\0".as_slice(), b"example"]).unwrap()), None);
    assert_eq!(host(&name("API.Example.")).unwrap().as_str(), "api.example");
}

#[test]
fn what_is_no_question_is_answered_as_it_deserves() {
    let query = upstream_query(&name("a.example."));
    let mut answer = query.clone();
    answer.metadata.message_type = MessageType::Response;
    assert!(matches!(Question::read(&answer.to_vec().unwrap()), Read::Nothing));
    assert!(matches!(Question::read(b"short"), Read::Nothing));
    let mut two = query.clone();
    two.add_query(query.queries[0].clone());
    for (bytes, code) in [
        (two.to_vec().unwrap(), ResponseCode::FormErr),
        ([query.to_vec().unwrap().as_slice()[..12].to_vec(), vec![0xff; 9]].concat(), ResponseCode::FormErr),
    ] {
        let Read::Reply(reply) = Question::read(&bytes) else { panic!() };
        assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, code);
    }
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let query = upstream_query(&name("a.example."));
    let mut answer = query.clone();
    answer.metadata.message_type = MessageType::Response;
    assert!(upstream_reply(&query, &answer.to_vec().unwrap()).is_some());
    let mut forged = answer.clone();
    forged.metadata.id = forged.metadata.id.wrapping_add(1);
    assert!(upstream_reply(&query, &forged.to_vec().unwrap()).is_none());
    let mut other = answer;
    other.queries = upstream_query(&name("b.example.")).queries;
    assert!(upstream_reply(&query, &other.to_vec().unwrap()).is_none());
    assert!(upstream_reply(&query, &query.to_vec().unwrap()).is_none());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Read::Question(question) = Question::read(&bytes) {
            let _ = (question.host(), question.max_udp());
            prop_assert!(question.reply(&Verdict::Blocked, 1232).is_none_or(|reply| reply.len() <= 1232));
        }
        let _ = upstream_reply(&upstream_query(&Name::root()), &bytes);
    }

    #[test]
    fn no_damaged_question_panics(at in 0..60usize, to in any::<u8>(), cut in 0..60usize) {
        let mut bytes = upstream_query(&name("some.name.example.")).to_vec().unwrap();
        let last = bytes.len() - 1;
        bytes[at.min(last)] = to;
        bytes.truncate(bytes.len() - cut.min(last));
        if let Read::Question(question) = Question::read(&bytes) {
            let _ = (question.host(), question.reply(&Verdict::Empty, 512));
        }
    }
}
