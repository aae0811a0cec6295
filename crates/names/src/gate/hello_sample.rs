//! Makes first messages of TLS connections, for tests.

/// An extension of this kind.
pub(crate) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &(content.len() as u16).to_be_bytes(), content].concat()
}

/// The extension that names servers.
pub(crate) fn server_names(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[0], &(name.len() as u16).to_be_bytes()[..], name.as_bytes()].concat())
        .collect();
    extension(0, &[&(list.len() as u16).to_be_bytes(), list.as_slice()].concat())
}

/// A first message with these extensions, in records of at most `record` bytes.
pub(crate) fn hello(extensions: &[Vec<u8>], record: usize) -> Vec<u8> {
    let extensions = extensions.concat();
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let message = [&[1, 0], &(body.len() as u16).to_be_bytes()[..], body.as_slice()].concat();
    let records = message.chunks(record);
    records.flat_map(|part| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat()).collect()
}

/// A first message to this server.
pub(crate) fn hello_to(name: &str) -> Vec<u8> {
    hello(&[extension(43, &[2, 3, 4]), server_names(&[name])], 16_384)
}
