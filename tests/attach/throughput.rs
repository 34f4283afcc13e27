//! Measures the cost of a hook for a pod's other traffic: TCP through a veth without a program, with TCX,
//! and with native XDP, which makes GRO the driver's work.
//!
//! Absolute numbers differ between machines, and drift on one. So the hooks alternate, the median round
//! counts, and the table has each throughput as a ratio to the one without a hook.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tap53::config::{CaptureConfig, Config, Directions, HookChoice, Overrides, TcChoice, XdpMode};
use tap53_capture::{
    capture::{Capture, Hook},
    interfaces,
};
use tap53_harness::namespace::{CLIENT_END, Namespace, SERVER_END, join};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(700);
const CHUNK_BYTES: usize = 128 << 10;

/// Hooks at the server's end.
const CASES: [(&str, Option<HookChoice>); 3] = [
    ("nothing attached", None),
    ("tcx, the default there", Some(HookChoice::Tc)),
    ("xdp native, tcx egress", Some(HookChoice::Xdp)),
];

fn main() -> Result<()> {
    let (client, server) = (Namespace::new()?, Namespace::new()?);
    join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
    let mut gbit_s = CASES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, hook), of_case) in CASES.iter().zip(&mut gbit_s) {
            of_case.push(round(&client, &server, *hook)?);
        }
    }
    let medians = gbit_s.map(median);
    println!("TCP through a veth                 Gbit/s   ratio");
    for ((name, _), median) in CASES.iter().zip(medians) {
        println!("{name:<32} {median:>8.2}  {:>6.2}", median / medians[0]);
    }
    Ok(())
}

/// Throughput of one connection while a hook is attached.
fn round(client: &Namespace, server: &Namespace, hook: Option<HookChoice>) -> Result<f64> {
    let _capture = hook.map(|hook| server.enter(|| attach(hook))).transpose()?;
    let listener = server.enter(|| Ok(TcpListener::bind((SERVER_END.ipv4, 0))?))?;
    let address: SocketAddr = listener.local_addr()?;
    let mut stream = client.enter(|| Ok(TcpStream::connect(address)?))?;
    let (mut received, _) = listener.accept()?;
    let reader = thread::spawn(move || -> std::io::Result<f64> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut bytes, started) = (0usize, Instant::now());
        loop {
            match received.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => bytes += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Ok(bytes as f64 * 8e-9 / started.elapsed().as_secs_f64())
    });
    let chunk = vec![0; CHUNK_BYTES];
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        stream.write_all(&chunk)?;
    }
    drop(stream);
    Ok(reader.join().map_err(|_| anyhow!("the reader panicked"))??)
}

fn attach(hook: HookChoice) -> Result<Capture> {
    let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
    let config = CaptureConfig {
        hook,
        xdp_mode: XdpMode::Native,
        tc: TcChoice::Auto,
        workers: 1,
        ring_bytes: 128 << 10,
        ..Config::load(None, &overrides)?.capture
    };
    let present = interfaces::list()?;
    let interface = present.iter().find(|i| i.name == SERVER_END.interface).context("no s0")?;
    let mut capture = Capture::load(&config)?;
    let attachment = capture.attach(interface, Directions::Both)?;
    if hook == HookChoice::Xdp && attachment.ingress != Some(Hook::XdpNative) {
        return Err(anyhow!("no native XDP: {}", attachment.why));
    }
    Ok(capture)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
