//! Servers of the world: a resolver that tells a fixed table, and servers that tell what they got: on port 80 of
//! every address, and on port 443 of two. The latter speak no TLS: they send back what comes.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::{Namespace, RESOLVER};

/// What servers of the world saw.
#[derive(Debug, Default, Clone)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Everything, in its order.
    ///
    /// # Panics
    /// A server did.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many of it hold this word.
    pub fn count(&self, word: &str) -> usize {
        self.all().iter().filter(|line| line.contains(word)).count()
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

/// Starts everything in the world, and returns what the servers see from now on.
///
/// # Panics
/// A port is taken.
pub async fn start(world: &Namespace) -> Seen {
    let seen = Seen::default();
    let (all, ready) = (seen.clone(), tokio::sync::oneshot::channel());
    world.spawn(async move || {
        let udp = Arc::new(UdpSocket::bind((RESOLVER, 53)).await.unwrap());
        let tcp = TcpListener::bind((RESOLVER, 53)).await.unwrap();
        let http = TcpListener::bind("0.0.0.0:80").await.unwrap();
        let plain = TcpListener::bind("203.0.113.10:443").await.unwrap();
        let second = TcpListener::bind("203.0.113.11:443").await.unwrap();
        ready.0.send(()).unwrap();
        tokio::join!(
            resolver(udp, all.clone()),
            serve(tcp, all.clone(), long_resolver),
            serve(http, all.clone(), http_server),
            serve(plain, all.clone(), echo),
            serve(second, all.clone(), echo)
        );
    });
    ready.1.await.unwrap();
    seen
}

async fn serve<F: Future<Output = std::io::Result<()>> + 'static>(
    listener: TcpListener,
    seen: Seen,
    serve: impl Fn(TcpStream, Seen) -> F,
) {
    tokio::task::LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(stream, seen.clone()));
            }
        })
        .await;
}

async fn resolver(socket: Arc<UdpSocket>, seen: Seen) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let reply = answer(&buffer[..length], &seen, false);
        socket.send_to(&reply, from).await.unwrap();
    }
}

async fn long_resolver(mut stream: TcpStream, seen: Seen) -> std::io::Result<()> {
    let mut query = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut query).await?;
    let reply = answer(&query, &seen, true);
    stream.write_u16(reply.len() as u16).await?;
    stream.write_all(&reply).await
}

/// The table of the world's names.
fn answer(query: &[u8], seen: &Seen, long: bool) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap();
    let name = message.queries[0].name.clone();
    seen.add(format!("lookup {name}"));
    message.metadata.message_type = MessageType::Response;
    let a = |owner: &str, ttl, d: [u8; 4]| {
        Record::from_rdata(Name::from_ascii(owner).unwrap(), ttl, RData::A(A(Ipv4Addr::from(d))))
    };
    let cname = |owner: &str, to: &str| {
        Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, RData::CNAME(CNAME(Name::from_ascii(to).unwrap())))
    };
    let owner = name.to_ascii();
    match owner.as_str() {
        "api.example." | "other.example." => message.add_answer(a(&owner, 60, [203, 0, 113, 10])),
        "tls.example." => message.add_answer(a(&owner, 60, [203, 0, 113, 20])),
        "second.example." => message.add_answer(a(&owner, 60, [203, 0, 113, 11])),
        "alias.example." => {
            message.add_answers([cname(&owner, "cdn.example."), a("cdn.example.", 5, [203, 0, 113, 11])])
        }
        "halfway.example." => message.add_answer(cname(&owner, "second.example.")),
        "rebind.example." => message.add_answers([a(&owner, 60, [203, 0, 113, 10]), a(&owner, 60, [10, 9, 9, 9])]),
        "metadata.example." => message.add_answer(a(&owner, 60, [169, 254, 169, 254])),
        "host.example." => message.add_answer(a(&owner, 60, [198, 51, 100, 1])),
        "guest.example." => message.add_answer(a(&owner, 60, [172, 16, 0, 3])),
        "smuggled.example." => {
            message.add_answers([a(&owner, 60, [203, 0, 113, 10]), a("api.example.", 60, [203, 0, 113, 11])])
        }
        "long.example." if !long => {
            message.metadata.truncation = true;
            &mut message
        }
        "long.example." => message.add_answers((0..80).map(|_| a(&owner, 60, [203, 0, 113, 11]))),
        _ if owner.ends_with("wild.example.") => message.add_answer(a(&owner, 60, [203, 0, 113, 10])),
        _ => {
            message.metadata.response_code = ResponseCode::NXDomain;
            &mut message
        }
    };
    message.to_vec().unwrap()
}

/// Answers each request with its head; keeps the connection. A request for `/socket` becomes an echo.
async fn http_server(mut stream: TcpStream, seen: Seen) -> std::io::Result<()> {
    seen.add("http connection".into());
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).to_string();
            seen.add(format!("request {head}"));
            if head.contains("GET /socket") {
                stream.write_all(b"HTTP/1.1 101 ok\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await?;
                return echo(stream, seen).await;
            }
            let reply = format!("HTTP/1.1 200 ok\r\ncontent-length: {}\r\n\r\n{head}", head.len());
            stream.write_all(reply.as_bytes()).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn echo(mut stream: TcpStream, seen: Seen) -> std::io::Result<()> {
    seen.add("echo connection".into());
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
