//! Files of a client, in and out: the side that runs in the sandbox, as the user. It knows no secret and holds nothing
//! of the agent's but its three standard streams.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::OFlags;

use super::beneath::{self, Path};
use super::failure::Failure;
use super::{look, pack, unpack};

/// What a jailed process is to do. It travels as the process's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Unpack the tar.gz on standard input into a directory.
    PutArchive { dest: String },
    /// Pack a directory's contents, or a file, to standard output.
    GetArchive { path: String },
    /// Write standard input to a file.
    PutContent { path: String, executable: bool },
    /// Write a file to standard output.
    GetContent { path: String },
    /// Describe what is there, as JSON.
    Stat { path: String },
    /// Describe what is in a directory, as JSON.
    List { path: String },
}

impl Order {
    /// The process's arguments, its name first.
    pub(super) fn to_arguments(&self) -> Vec<String> {
        let (name, path) = match self {
            Self::PutArchive { dest } => ("put-archive", dest),
            Self::GetArchive { path } => ("get-archive", path),
            Self::PutContent { path, executable: false } => ("put-content", path),
            Self::PutContent { path, executable: true } => ("put-program", path),
            Self::GetContent { path } => ("get-content", path),
            Self::Stat { path } => ("stat", path),
            Self::List { path } => ("list", path),
        };
        ["rds-files", name, path].map(str::to_owned).into()
    }

    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (name, path) = (arguments.next()?, arguments.next()?);
        Some(match name.as_str() {
            "put-archive" => Self::PutArchive { dest: path },
            "get-archive" => Self::GetArchive { path },
            "put-content" => Self::PutContent { path, executable: false },
            "put-program" => Self::PutContent { path, executable: true },
            "get-content" => Self::GetContent { path },
            "stat" => Self::Stat { path },
            "list" => Self::List { path },
            _ => return None,
        })
    }

    fn carry_out(&self) -> Result<(), Failure> {
        match self {
            Self::PutArchive { dest } => unpack::unpack(io::stdin().lock(), &Path::parse(dest)?),
            Self::GetArchive { path } => pack::pack(&Path::parse(path)?, io::stdout().lock()),
            Self::PutContent { path, executable } => write(&Path::parse(path)?, *executable),
            Self::GetContent { path } => read(&Path::parse(path)?),
            Self::Stat { path } => look::stat(&Path::parse(path)?, io::stdout().lock()),
            Self::List { path } => look::list(&Path::parse(path)?, io::stdout().lock()),
        }
    }
}

/// Carries out what the process's arguments say. Returns its exit status.
pub(crate) fn main() -> i32 {
    let Some(order) = Order::from_arguments(std::env::args().skip(1)) else { return 2 };
    match order.carry_out() {
        Ok(()) => 0,
        Err(failure) => {
            eprint!("{failure}");
            1
        }
    }
}

/// Writes a file whole, then gives it its name: whoever reads meanwhile has the old one, and of an upload that breaks off
/// nothing is left.
fn write(path: &Path, executable: bool) -> Result<(), Failure> {
    let (parent, name) = path.split()?;
    let directory = parent.make()?;
    let written = (|| {
        let mut file = beneath::create_nameless(&directory, executable)?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        beneath::name(&file, &directory, name)
    })();
    written.map_err(|error| path.failed(error))
}

fn read(path: &Path) -> Result<(), Failure> {
    let mut file = pack::open_file(path)?;
    let mut output = io::stdout().lock();
    copy(&mut file, &mut output).map_err(|error| path.failed(error))
}

fn copy(from: &mut impl Read, to: &mut (impl Write + AsFd)) -> io::Result<()> {
    io::copy(from, to)?;
    to.flush()
}

/// Flags to open something for reading that may turn out to be a fifo, which must not be waited for.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_being_arguments() {
        let path = || "/workspace/a b".to_owned();
        for order in [
            Order::PutArchive { dest: path() },
            Order::GetArchive { path: path() },
            Order::PutContent { path: path(), executable: true },
            Order::PutContent { path: path(), executable: false },
            Order::GetContent { path: path() },
            Order::Stat { path: path() },
            Order::List { path: path() },
        ] {
            assert_eq!(Order::from_arguments(order.to_arguments().into_iter().skip(1)), Some(order));
        }
        assert_eq!(Order::from_arguments(["x".to_owned(), path()].into_iter()), None);
    }
}
