//! Reading server-sent events from the pieces in which they arrive.

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` if it has none.
    pub(crate) name: String,
    /// Its data, several lines joined with newlines.
    pub(crate) data: String,
}

/// Collects bytes and gives out whole events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: Vec<u8>,
}

impl Events {
    /// Takes the next bytes and gives the events that are whole now.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        self.pending.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            events.extend(parse(&String::from_utf8_lossy(&block)));
        }
        events
    }
}

/// Reads the lines of one event; `None` for a comment.
fn parse(block: &str) -> Option<Event> {
    let (mut name, mut data) = ("message", Vec::new());
    for line in block.lines() {
        match line.split_once(':') {
            Some(("event", value)) => name = value.trim_start(),
            Some(("data", value)) => data.push(value.strip_prefix(' ').unwrap_or(value)),
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Event { name: name.to_owned(), data: data.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_split() {
        let wire = b": hello\n\nevent: stdout\ndata: \"h\xc3\xa9\"\n\nevent: exit\ndata: {\"exitCode\":0}\n\n";
        for size in 1..wire.len() {
            let mut events = Events::default();
            let seen: Vec<Event> = wire.chunks(size).flat_map(|piece| events.push(piece)).collect();
            assert_eq!(
                seen,
                [
                    Event { name: "stdout".into(), data: "\"hé\"".into() },
                    Event { name: "exit".into(), data: "{\"exitCode\":0}".into() }
                ]
            );
        }
    }
}
