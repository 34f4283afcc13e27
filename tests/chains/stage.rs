//! A node with clients, a resolver and an upstream server, joined by a bridge, as pods of a node are.
//!
//! ```text
//!  clients: k0 ─ vk ┐              agent: vk, vr, vu
//!  resolver: r0 ─ vr ┤ br0 (node)
//!  upstream: u0 ─ vu ┘ ◀─ relay, which delays responses and drops a few ─ unbound on loopback
//! ```

use std::{
    collections::HashMap,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tap53_harness::{dns, namespace::Namespace, unbound::Unbound};

pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// Another address of the resolver, at which it does not answer.
pub(crate) const OUTGOING: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 54);
pub(crate) const UPSTREAM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

/// Delay of a response, as of an upstream server in the same city.
const DELAY: Duration = Duration::from_millis(8);

/// Time that a response may be on its way from the relay to the resolver, in microseconds.
const SENT_US: i64 = 2_000;

/// One response in this number is dropped.
const DROPPED: u32 = 150;

/// Time that a client waits for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// Root and one zone below it, both at the upstream server.
const ROOT: &str = ". 3600 IN SOA a.root. admin.root. 1 3600 600 86400 2
. 3600 IN NS ns.test.
test. 3600 IN NS ns.test.
ns.test. 3600 IN A 198.51.100.100
";

/// Address of a client.
pub(crate) fn client_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 1 + number)
}

/// The stage.
pub(crate) struct Stage {
    pub(crate) upstream: Unbound,
    pub(crate) resolver: Unbound,
    relay: Relay,
    pub(crate) node: Namespace,
    clients: Namespace,
    _namespaces: [Namespace; 2],
}

impl Stage {
    /// Sets the stage. `resolution` is how the resolver finds answers, and `zone` has records of test.
    pub(crate) fn new(
        clients: u8,
        resolution: &str,
        zone: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let node = Namespace::new()?;
        node.ip(&["link", "add", "br0", "type", "bridge"])?;
        node.ip(&["link", "set", "br0", "up"])?;
        let addresses: Vec<Ipv4Addr> = (0..clients).map(client_address).collect();
        let clients = pod(&node, "vk", &addresses)?;
        let resolver_pod = pod(&node, "vr", &[RESOLVER, OUTGOING])?;
        let upstream_pod = pod(&node, "vu", &[UPSTREAM])?;
        let files = [("root.zone", ROOT), ("test.zone", zone)];
        let upstream =
            Unbound::start_configured(&upstream_pod, &upstream_configuration(), &files, |_| {})?;
        let relay = Relay::start(&upstream_pod)?;
        let hints = format!(". 3600000 NS ns.test.\nns.test. 3600000 A {UPSTREAM}\n");
        let resolver = Unbound::start_configured(
            &resolver_pod,
            &resolver_configuration(resolution),
            &[("root.hints", &hints)],
            prepare,
        )?;
        let _namespaces = [resolver_pod, upstream_pod];
        Ok(Self { upstream, resolver, relay, node, clients, _namespaces })
    }

    /// Runs a shell script in the clients' namespace, with this `/etc/resolv.conf`.
    pub(crate) fn run_script(&self, resolv_conf: &str, script: &str) -> Result<String> {
        let directory = tap53_harness::scratch::directory("resolv")?;
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, resolv_conf)?;
        let mounted = format!("mount --bind {} /etc/resolv.conf && {script}", path.display());
        let mut command = self.clients.command("unshare");
        command.args(["--mount", "sh", "-c", &mounted]);
        tap53_harness::process::run(&mut command)
    }

    /// Returns true if the upstream server's response for one of these names was on its way between two
    /// times, in microseconds since 1970 UTC.
    pub(crate) fn has_answered(&self, names: &[&str], from_us: i64, to_us: i64) -> bool {
        let answered = locked(&self.relay.answered);
        let times = names.iter().filter_map(|name| answered.get(*name)).flatten();
        times.into_iter().any(|at_us| (from_us - SENT_US..=to_us).contains(at_us))
    }

    /// Runs each client on a thread of its own inside the clients' namespace.
    pub(crate) fn run_clients(
        &self,
        clients: u8,
        work: impl Fn(u8, &Asker) -> Result<()> + Sync,
    ) -> Result<()> {
        self.clients.enter(|| {
            thread::scope(|scope| {
                let work = &work;
                let running: Vec<_> = (0..clients)
                    .map(|number| scope.spawn(move || work(number, &Asker::new(number)?)))
                    .collect();
                running.into_iter().try_for_each(|client| {
                    client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
                })
            })
        })
    }
}

/// Creates a namespace whose interface `p0` is at `end` of the node's bridge.
fn pod(node: &Namespace, end: &str, addresses: &[Ipv4Addr]) -> Result<Namespace> {
    let pod = Namespace::new()?;
    #[rustfmt::skip]
    node.ip(&[
        "link", "add", end, "type", "veth", "peer", "name", "p0", "netns", pod.name(),
    ])?;
    node.ip(&["link", "set", end, "master", "br0", "up"])?;
    for address in addresses {
        pod.ip(&["address", "add", &format!("{address}/24"), "dev", "p0"])?;
    }
    pod.ip(&["link", "set", "p0", "up"])?;
    Ok(pod)
}

const COMMON: &str = r#"server:
  verbosity: 1
  use-syslog: no
  logfile: ""
  username: ""
  chroot: ""
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  edns-tcp-keepalive: no
  do-not-query-localhost: no
  local-zone: "test." nodefault
"#;

fn upstream_configuration() -> String {
    let zone = |name: &str, file: &str| {
        format!("auth-zone:\n  name: \"{name}\"\n  zonefile: \"$DIR/{file}\"\n  for-upstream: no\n")
    };
    format!(
        "{COMMON}  interface: 127.0.0.1\n  num-threads: 1\n  log-queries: yes\n\
         remote-control:\n  control-enable: no\n{}{}",
        zone(".", "root.zone"),
        zone("test.", "test.zone")
    )
}

fn resolver_configuration(resolution: &str) -> String {
    format!(
        "{COMMON}  interface: {RESOLVER}\n  num-threads: 1\n  log-replies: yes\n  prefetch: yes\n  \
         outgoing-range: 900\n  num-queries-per-thread: 400\n  \
         local-zone: \"cluster.local.\" static\n  \
         local-data: \"own.cluster.local. 5 IN A 192.0.2.9\"\n{resolution}"
    )
}

/// A client with an address of its own, which waits for each answer.
pub(crate) struct Asker(UdpSocket);

impl Asker {
    fn new(number: u8) -> Result<Self> {
        let socket = UdpSocket::bind((client_address(number), 0))?;
        socket.connect((RESOLVER, 53))?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
        Ok(Self(socket))
    }

    pub(crate) fn ask(&self, id: u16, name: &str) -> Result<()> {
        self.0.send(&dns::query(id, name, "A"))?;
        let mut answer = [0; 4_096];
        loop {
            let size = self.0.recv(&mut answer).with_context(|| format!("no answer for {name}"))?;
            ensure!(size >= dns::HEADER_SIZE, "a short answer");
            if answer[..2] == id.to_be_bytes() {
                return Ok(());
            }
        }
    }
}

/// Delays what the upstream server answers. Messages keep their order.
struct Relay {
    /// Times of responses by name, in microseconds since 1970 UTC.
    answered: Arc<Mutex<HashMap<String, Vec<i64>>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The senders of queries and their identifiers, by the identifier at the server.
type Senders = Mutex<HashMap<u16, (std::net::SocketAddr, [u8; 2])>>;

impl Relay {
    fn start(namespace: &Namespace) -> Result<Self> {
        const POLL: Duration = Duration::from_millis(50);
        let (front, back) = namespace.enter(|| {
            let front = UdpSocket::bind((UPSTREAM, 53))?;
            let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            back.connect((Ipv4Addr::LOCALHOST, 53))?;
            Ok((front, back))
        })?;
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(POLL))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Arc<Senders> = Arc::default();
        let (front, back) = (Arc::new(front), Arc::new(back));
        let (delayed, due) = mpsc::channel::<(Instant, Vec<u8>, std::net::SocketAddr)>();
        let mut threads = Vec::new();
        {
            let (stop, senders, front, back) =
                (stop.clone(), senders.clone(), front.clone(), back.clone());
            threads.push(thread::spawn(move || {
                let mut buffer = [0; 4_096];
                let mut next = 0_u16;
                while !stop.load(Ordering::Relaxed) {
                    let Ok((size, from)) = front.recv_from(&mut buffer) else { continue };
                    next = next.wrapping_add(1);
                    let id = [buffer[0], buffer[1]];
                    locked(&senders).insert(next, (from, id));
                    buffer[..2].copy_from_slice(&next.to_be_bytes());
                    let _ = back.send(&buffer[..size]);
                }
            }));
        }
        {
            let stop = stop.clone();
            threads.push(thread::spawn(move || {
                let mut buffer = [0; 4_096];
                let mut number = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(size) = back.recv(&mut buffer) else { continue };
                    let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                    let Some((to, id)) = locked(&senders).remove(&id) else { continue };
                    buffer[..2].copy_from_slice(&id);
                    number += 1;
                    if !number.is_multiple_of(DROPPED) {
                        let _ = delayed.send((Instant::now() + DELAY, buffer[..size].to_vec(), to));
                    }
                }
            }));
        }
        let answered: Arc<Mutex<HashMap<String, Vec<i64>>>> = Arc::default();
        let log = answered.clone();
        threads.push(thread::spawn(move || {
            for (at, message, to) in due {
                // The delay of a line, not a wait for an event.
                thread::sleep(at.saturating_duration_since(Instant::now()));
                let at_us =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros());
                let at_us = i64::try_from(at_us).unwrap_or(i64::MAX);
                locked(&log).entry(question_name(&message)).or_default().push(at_us);
                let _ = front.send_to(&message, to);
            }
        }));
        Ok(Self { answered, stop, threads })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the name of the first question in lower case.
fn question_name(message: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = message.get(dns::HEADER_SIZE..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first()
        && *length > 0
        && let Some((label, tail)) = tail.split_at_checked(usize::from(*length))
    {
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = tail;
    }
    labels.join(".")
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
