//! A client that sends queries and ends without waiting for responses:
//! `brief-client <udp|connected|tcp|sendmmsg|shared> <server> <name>...`
//!
//! With `shared`, a process sends one query and then has another one send the rest from the same socket,
//! which is its standard input: `brief-client inherited`.

use std::{
    env,
    io::{self, IoSlice, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use tap53_harness::dns;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, server, names @ ..] = arguments.as_slice() else {
        bail!("brief-client <udp|connected|tcp|sendmmsg|shared> <server> <name>...");
    };
    let server = SocketAddr::new(server.parse().context("an address")?, 53);
    let queries: Vec<Vec<u8>> =
        (1..).zip(names).map(|(id, name)| dns::query(id, name, "A")).collect();
    match mode.as_str() {
        "udp" => {
            let socket = bind(server)?;
            for query in &queries {
                socket.send_to(query, server)?;
            }
        }
        "connected" => {
            let socket = bind(server)?;
            socket.connect(server)?;
            for query in &queries {
                socket.send(query)?;
            }
        }
        "tcp" => {
            let mut stream = TcpStream::connect(server)?;
            for query in &queries {
                let length = u16::try_from(query.len())?.to_be_bytes();
                stream.write_all(&[&length, query.as_slice()].concat())?;
            }
        }
        "shared" => {
            let ([query, ..], [_, rest @ ..]) = (queries.as_slice(), names) else {
                bail!("no name");
            };
            let socket = bind(server)?;
            socket.send_to(query, server)?;
            let mut other = Command::new(env::current_exe()?);
            other.arg("inherited").arg(server.ip().to_string()).args(rest);
            ensure!(other.stdin(OwnedFd::from(socket)).status()?.success(), "{other:?} failed");
        }
        "inherited" => {
            let socket = UdpSocket::from(io::stdin().as_fd().try_clone_to_owned()?);
            for query in &queries {
                socket.send_to(query, server)?;
            }
        }
        "sendmmsg" => send_at_once(&bind(server)?, server, &queries)?,
        other => bail!("no mode {other:?}"),
    }
    Ok(())
}

fn bind(server: SocketAddr) -> Result<UdpSocket> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    Ok(UdpSocket::bind(any)?)
}

fn send_at_once(socket: &UdpSocket, server: SocketAddr, queries: &[Vec<u8>]) -> Result<()> {
    let slices: Vec<[IoSlice<'_>; 1]> = queries.iter().map(|query| [IoSlice::new(query)]).collect();
    let mut headers = MultiHeaders::preallocate(queries.len(), None);
    let to = vec![Some(SockaddrStorage::from(server)); queries.len()];
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], MsgFlags::empty())?;
    ensure!(sent.count() == queries.len(), "not all queries were sent");
    Ok(())
}
