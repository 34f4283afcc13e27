//! Payload through a tunnel at a pace, which the other end sends back.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{lookups::Random, namespace::Namespace};

/// The server's address in iodine's network, with the length of its prefix.
pub(super) const IODINE_NETWORK: &str = "10.53.0.1/24";
const IODINE_SERVER: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 1);
/// An echo ends after this time without a packet.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
const ECHO_PORT: u16 = 7_007;
/// The port on which dns2tcp's client accepts connections.
pub(super) const LOCAL_PORT: u16 = 4_444;
/// Sizes of packets in bytes, as a shell and some downloads make them.
const SIZES: [usize; 6] = [24, 40, 60, 90, 150, 600];

/// Packets of payload, and their rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Number of packets.
    pub packets: u32,
    /// Packets in a second.
    pub per_second: u32,
}

/// Sends datagrams through iodine's network.
pub(super) fn through_ip(client: &Namespace, server: &Namespace, pace: Pace) -> Result<()> {
    let echo = server.enter(|| Ok(UdpSocket::bind((IODINE_SERVER, ECHO_PORT))?))?;
    echo.set_read_timeout(Some(ECHO_TIMEOUT))?;
    // A socket keeps its namespace: the thread must not outlive the tunnel for long.
    thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    let socket = client.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    socket.connect((IODINE_SERVER, ECHO_PORT))?;
    let echoed = paced(
        pace,
        |bytes| Ok(socket.send(bytes)?),
        |buffer, until| {
            socket.set_read_timeout(Some(until))?;
            Ok(socket.recv(buffer)?)
        },
    )?;
    ensure!(echoed > 0, "nothing came back through the tunnel");
    Ok(())
}

/// Sends bytes through a TCP connection of dns2tcp.
pub(super) fn through_tcp(client: &Namespace, pace: Pace) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, LOCAL_PORT));
    let stream = client.enter(|| TcpStream::connect(address).context("connect to dns2tcpc"))?;
    stream.set_nodelay(true)?;
    let echoed = paced(
        pace,
        |bytes| Ok((&stream).write(bytes)?),
        |buffer, until| {
            stream.set_read_timeout(Some(until))?;
            Ok((&stream).read(buffer)?)
        },
    )?;
    ensure!(echoed > 0, "nothing came back through the tunnel");
    Ok(())
}

/// Sends packets, each when it is due, and reads what comes back in between. Returns the bytes read.
fn paced(
    pace: Pace,
    mut send: impl FnMut(&[u8]) -> Result<usize>,
    mut receive: impl FnMut(&mut [u8], Duration) -> Result<usize>,
) -> Result<usize> {
    let mut random = Random::new(u64::from(pace.per_second));
    let (begin, mut buffer, mut echoed) = (Instant::now(), [0; 4_096], 0);
    for number in 1..=pace.packets {
        let length = random.pick(&SIZES);
        send(&random.bytes(length))?;
        let due = begin + Duration::from_secs(1) * number / pace.per_second;
        while let Some(left) =
            due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            match receive(&mut buffer, left.max(Duration::from_millis(1))) {
                Ok(0) => return Ok(echoed),
                Ok(length) => echoed += length,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(echoed)
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted))
}

/// A TCP service that sends back what it gets, for one connection.
pub(super) struct Echo {
    port: u16,
}

impl Echo {
    pub(super) fn start(server: &Namespace) -> Result<Self> {
        let listener = server.enter(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 4_096];
            loop {
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                stream.write_all(&buffer[..length])?;
            }
        });
        Ok(Self { port })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }
}
