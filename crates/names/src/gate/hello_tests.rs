//! First messages, whole and cut, honest and hostile.

use proptest::prelude::*;

use super::sample::{extension, hello, hello_to, server_names};
use super::*;

fn read(bytes: &[u8]) -> Hello {
    Reader::default().read(bytes)
}

fn to(name: &str) -> Hello {
    Hello::To(HostName::parse(name.as_bytes()).unwrap())
}

#[test]
fn the_servers_name_is_read() {
    assert_eq!(read(&hello_to("API.example.com")), to("api.example.com"));
    let early_data = [hello_to("a.example"), vec![20, 3, 3, 0, 1, 1]].concat();
    assert_eq!(read(&early_data), to("a.example"));
}

#[test]
fn a_message_may_come_in_any_pieces() {
    for record in [1, 5, 50] {
        let bytes = hello(&[server_names(&["a.example"])], record);
        let mut reader = Reader::default();
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Hello::Incomplete, "{record} {cut}");
            assert_eq!(reader.read(&bytes[..cut]), Hello::Incomplete, "{record} {cut}");
        }
        assert_eq!((read(&bytes), reader.read(&bytes)), (to("a.example"), to("a.example")));
    }
}

#[test]
fn what_hides_or_doubles_the_name_is_refused() {
    let sni = server_names(&["a.example"]);
    for (extensions, why) in [
        (vec![], Refusal::NoName),
        (vec![extension(43, &[2, 3, 4])], Refusal::NoName),
        (vec![server_names(&["192.0.2.1"])], Refusal::NoName),
        (vec![server_names(&["a.example\0.evil"])], Refusal::NoName),
        (vec![sni.clone(), extension(0xfe0d, &[0; 40])], Refusal::Hidden),
        (vec![extension(0xffce, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), sni.clone()], Refusal::Hidden),
        (vec![sni.clone(), sni.clone()], Refusal::NotUnderstood),
        (vec![server_names(&["a.example", "b.example"])], Refusal::NotUnderstood),
        (vec![server_names(&[])], Refusal::NotUnderstood),
        (vec![sni, vec![1, 2, 3]], Refusal::NotUnderstood),
    ] {
        assert_eq!(read(&hello(&extensions, 16_384)), Hello::Refused(why), "{extensions:?}");
    }
}

#[test]
fn other_protocols_and_endless_messages_are_refused() {
    let mut long = hello(&[extension(21, &vec![0; 16_200])], 100);
    long.truncate(MAX_HELLO);
    let refused = Hello::Refused(Refusal::NotUnderstood);
    for bytes in [
        b"GET / HTTP/1.1\r\n".as_slice(),
        b"SSH-2.0-x\r\n",
        &[0x80, 46, 1, 3, 1],
        &[22, 3, 1, 0, 0],
        &[22, 2, 0, 0, 1, 1],
    ] {
        assert_eq!(read(bytes), refused, "{bytes:?}");
    }
    assert_eq!(read(&[22, 3, 1, 0, 4, 1, 1, 0, 0]), refused, "longer than any");
    assert_eq!(read(&long), refused);
    let two = [hello_to("a.example"), hello_to("b.example")].concat();
    assert_eq!(read(&two), to("a.example"), "a second one is the server's to refuse");
}

#[test]
fn many_small_records_take_little_time() {
    let bytes = hello(&[extension(21, &vec![0; 2_600])], 1);
    let (mut reader, begun) = (Reader::default(), std::time::Instant::now());
    let read = (0..bytes.len()).filter(|cut| reader.read(&bytes[..*cut]) == Hello::Incomplete).count();
    assert_eq!(read, bytes.len());
    assert!(begun.elapsed() < std::time::Duration::from_millis(200), "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&[&[22, 3, 1, 1, 0, 1, 0, 0][..], &bytes].concat());
    }

    #[test]
    fn no_damaged_message_panics(at in 0..100usize, to in any::<u8>()) {
        let mut bytes = hello(&[server_names(&["a.example"]), extension(0xfe0d, &[1; 20])], 40);
        let last = bytes.len() - 1;
        bytes[at.min(last)] = to;
        let _ = read(&bytes);
    }
}
