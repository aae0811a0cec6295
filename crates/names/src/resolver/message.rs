//! DNS messages: what is read of a guest's question and of the upstream's reply, and what the guest is told. Pure: no I/O.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::domains::HostName;
use crate::openings::told_ttl;

/// Longest message to a guest over UDP: what passes everywhere in one piece (DNS flag day 2020).
const MAX_UDP: u16 = 1232;

/// Longest message over UDP to who does not say more (RFC 1035, section 4.2.1).
const LEAST_UDP: u16 = 512;

/// Most addresses in an answer.
const MAX_ADDRESSES: usize = 16;

/// Longest chain of aliases.
const MAX_ALIASES: usize = 8;

/// The code of an option that tells more about an error, and two of its values (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
const PROHIBITED: u16 = 18;

/// A guest's question, as far as it can be answered.
#[derive(Debug)]
pub(crate) struct Question {
    id: u16,
    query: Query,
    recursion_desired: bool,
    /// What fits into a UDP message to the guest; `None` if it does not know EDNS.
    payload: Option<u16>,
}

/// What becomes of bytes that claim to be a question.
#[derive(Debug)]
pub(crate) enum Read {
    Question(Question),
    /// No question, but something that wants this reply.
    Reply(Vec<u8>),
    /// Nothing that is ever replied to: too short, or a reply itself.
    Nothing,
}

/// How a question is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// The name is not allowed, or leads where no name may. To programs it does not exist: they stop at once, where a
    /// refusal would make them ask again and again.
    Blocked,
    /// More than the guest may ask.
    Prohibited,
    /// The name is allowed; there is nothing of the kind that was asked for.
    Empty,
    /// The name is allowed and does not exist.
    Missing,
    /// The upstream resolver gave no usable answer.
    Failed,
    /// Where the name leads.
    Found(Found),
}

/// Where a name leads, by which aliases.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) aliases: Vec<Name>,
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Seconds, the least of the whole chain.
    pub(crate) ttl: u32,
}

impl Question {
    pub(crate) fn read(bytes: &[u8]) -> Read {
        let [first, second, flags, ..] = bytes else { return Read::Nothing };
        let is_reply = flags & 0x80 != 0;
        if bytes.len() < 12 || is_reply {
            return Read::Nothing;
        }
        let id = u16::from_be_bytes([*first, *second]);
        let error = |op_code, code| Message::error_msg(id, op_code, code).to_vec().map_or(Read::Nothing, Read::Reply);
        let Ok(message) = Message::from_vec(bytes) else { return error(OpCode::Query, ResponseCode::FormErr) };
        if message.metadata.op_code != OpCode::Query {
            return error(message.metadata.op_code, ResponseCode::NotImp);
        }
        let [query] = message.queries.as_slice() else { return error(OpCode::Query, ResponseCode::FormErr) };
        if query.query_class != DNSClass::IN {
            return error(OpCode::Query, ResponseCode::Refused);
        }
        Read::Question(Self {
            id,
            query: query.clone(),
            recursion_desired: message.metadata.recursion_desired,
            payload: message.edns.as_ref().map(Edns::max_payload),
        })
    }

    /// The name that is asked for, if it can be one of a host.
    pub(crate) fn host(&self) -> Option<HostName> {
        host(&self.query.name)
    }

    pub(crate) fn name(&self) -> &Name {
        &self.query.name
    }

    /// Whether it asks for IPv4 addresses. Nothing else is ever told: guests have no IPv6, and other records could carry
    /// anything.
    pub(crate) fn wants_addresses(&self) -> bool {
        self.query.query_type == RecordType::A
    }

    /// Most bytes that the asker takes over UDP.
    pub(crate) fn max_udp(&self) -> usize {
        self.payload.unwrap_or(LEAST_UDP).clamp(LEAST_UDP, MAX_UDP).into()
    }

    /// The reply, of at most `max` bytes: what does not fit is left out, and the asker is told to come by TCP.
    pub(crate) fn reply(&self, verdict: &Verdict, max: usize) -> Option<Vec<u8>> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        message.metadata.response_code = match verdict {
            Verdict::Blocked | Verdict::Missing => ResponseCode::NXDomain,
            Verdict::Prohibited => ResponseCode::Refused,
            Verdict::Failed => ResponseCode::ServFail,
            Verdict::Empty | Verdict::Found(_) => ResponseCode::NoError,
        };
        if self.payload.is_some() {
            message.set_edns(edns(verdict));
        }
        if let Verdict::Found(found) = verdict {
            message.add_answers(found.records(&self.query.name));
        }
        let bytes = message.to_vec().ok()?;
        if bytes.len() <= max { Some(bytes) } else { message.truncate().to_vec().ok() }
    }
}

/// The host that a name of a message stands for.
pub(crate) fn host(name: &Name) -> Option<HostName> {
    let labels: Vec<&[u8]> = name.iter().collect();
    // A label may hold a dot of its own, which would make two of one.
    if labels.iter().any(|label| label.contains(&b'.')) {
        return None;
    }
    HostName::parse(&labels.join(&b'.'))
}

fn edns(verdict: &Verdict) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    let more = match verdict {
        Verdict::Blocked => Some((BLOCKED, "not in allowDomains, or it leads to a private address")),
        Verdict::Prohibited => Some((PROHIBITED, "more lookups than allowed")),
        _ => None,
    };
    if let Some((code, text)) = more {
        let value = [&code.to_be_bytes(), text.as_bytes()].concat();
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, value));
    }
    edns
}

impl Found {
    fn records(&self, asked: &Name) -> Vec<Record> {
        let ttl = told_ttl(self.ttl);
        let mut owner = asked.clone();
        let mut records = Vec::new();
        for alias in &self.aliases {
            records.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(alias.clone()))));
            owner = alias.clone();
        }
        let address = |address: &Ipv4Addr| Record::from_rdata(owner.clone(), ttl, RData::A(A(*address)));
        records.extend(self.addresses.iter().map(address));
        records
    }
}

/// What a reply of the upstream resolver says about a name.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The whole way is known.
    Done(Verdict),
    /// The way goes on under another name, which the reply says nothing of.
    Onward(Found, Name),
}

/// Goes along a reply's aliases from `name`, which is where `so_far` ended. Records that are not on the way are ignored:
/// who serves one name has no say about others.
pub(crate) fn follow(reply: &Message, name: &Name, so_far: Option<Found>) -> Step {
    match reply.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Step::Done(Verdict::Missing),
        _ => return Step::Done(Verdict::Failed),
    }
    let mut found = so_far.unwrap_or(Found { ttl: u32::MAX, ..Found::default() });
    let (start, mut at) = (found.aliases.len(), name.clone());
    loop {
        let here = || reply.answers.iter().filter(|record| record.name == at && record.dns_class == DNSClass::IN);
        let addresses: Vec<(Ipv4Addr, u32)> = here()
            .filter_map(|record| match &record.data {
                RData::A(A(address)) => Some((*address, record.ttl)),
                _ => None,
            })
            .take(MAX_ADDRESSES)
            .collect();
        if !addresses.is_empty() {
            found.ttl = addresses.iter().map(|(_, ttl)| *ttl).fold(found.ttl, u32::min);
            found.addresses = addresses.into_iter().map(|(address, _)| address).collect();
            return Step::Done(Verdict::Found(found));
        }
        let alias = here().find_map(|record| match &record.data {
            RData::CNAME(CNAME(alias)) => Some((alias.clone(), record.ttl)),
            _ => None,
        });
        match alias {
            Some(_) if found.aliases.len() >= MAX_ALIASES => return Step::Done(Verdict::Failed),
            Some((alias, ttl)) => {
                found.ttl = found.ttl.min(ttl);
                found.aliases.push(alias.clone());
                at = alias;
            }
            None if found.aliases.len() > start => return Step::Onward(found, at),
            None => return Step::Done(Verdict::Empty),
        }
    }
}

/// The question to the upstream resolver: a number and a name, nothing else of what the guest wrote.
pub(crate) fn upstream_query(name: &Name) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.to_lowercase(), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    message.set_edns(edns);
    message
}

/// The upstream's reply to `query`, if these bytes are one.
pub(crate) fn upstream_reply(query: &Message, bytes: &[u8]) -> Option<Message> {
    let reply = Message::from_vec(bytes).ok()?;
    let answers = reply.metadata.id == query.metadata.id
        && reply.metadata.message_type == MessageType::Response
        && reply.queries == query.queries;
    answers.then_some(reply)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
