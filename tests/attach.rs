//! Attaching on real interfaces: each hook, each reason to fall back, and what is left afterwards.

#[path = "attach/clsact.rs"]
mod clsact;
#[path = "attach/shadow.rs"]
mod shadow;

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, raise},
    unistd::Pid,
};
use tap53::config::{CaptureConfig, Config, Directions, HookChoice, Overrides, TcChoice, XdpMode};
use tap53_capture::{
    capture::{Capture, Hook, HookOwners, Preflight, Program, Qdisc, XdpAttached},
    interfaces::{self, Interface},
};
use tap53_ebpf::{
    counter::Counter,
    record::RecordHeader,
    settings::Direction::{Egress, Ingress},
};
use tap53_harness::{
    bpf::{self, Place, TcxHolder, XdpHolder, require_bare, verdict},
    dns,
    frames::{FrameSocket, udp_to_port_53},
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    wait,
};

const DEADLINE: Duration = Duration::from_secs(5);
const INTERFACE: &str = SERVER_END.interface;

/// Two namespaces joined by a veth pair. One test at a time has a stage, since some compare the BPF
/// objects of the whole process.
struct Stage {
    client: Namespace,
    server: Namespace,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn new() -> Result<Self> {
        Self::with_mtu(1_500)
    }

    fn with_mtu(mtu_bytes: u32) -> Result<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        join((&client, CLIENT_END), (&server, SERVER_END), mtu_bytes)?;
        Ok(Self { client, server, _alone: alone })
    }

    /// Sends a DNS query of `payload_bytes` to the server's interface.
    fn send_query(&self, payload_bytes: usize) -> Result<()> {
        let mut payload = dns::query(1, "www.tap53.test", "A");
        payload.resize(payload_bytes.max(payload.len()), 0);
        FrameSocket::open(&self.client, CLIENT_END.interface)?
            .send(&udp_to_port_53(4_242, &payload))
    }

    fn require_bare(&self) -> Result<()> {
        require_bare(&self.server, INTERFACE)?;
        let owners = self.server.enter(|| Ok(HookOwners::of(&interface(INTERFACE)?)?))?;
        ensure!(owners.tcx.is_none_or(|tcx| tcx == [[], []]), "TCX programs are left");
        Ok(())
    }
}

/// An interface of this thread's namespace.
fn interface(name: &str) -> Result<Interface> {
    let interfaces = interfaces::list()?;
    interfaces.into_iter().find(|i| i.name == name).with_context(|| format!("no interface {name}"))
}

/// Small rings, so that a test costs little.
fn config(hook: HookChoice, xdp_mode: XdpMode, tc: TcChoice) -> CaptureConfig {
    let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
    let config = Config::load(None, &overrides).expect("the defaults are valid");
    CaptureConfig { hook, xdp_mode, tc, workers: 2, ring_bytes: 128 << 10, ..config.capture }
}

/// What `tc: auto` takes on this kernel, and what it then says of it.
fn best_tc() -> Result<(Hook, &'static str)> {
    let tcx = HookOwners::of(&interface("lo")?)?.tcx;
    Ok(if tcx.is_some() { (Hook::Tcx, "") } else { (Hook::Clsact, "; no TCX: EINVAL") })
}

/// Packets seen and captured on ingress of the only interface.
fn ingress_counts(capture: &Capture) -> Result<(u64, u64)> {
    let counters = capture.counters()?;
    let ingress = counters[0].by_direction[Ingress as usize];
    ensure!(ingress.balanced(), "{ingress:?}");
    Ok((ingress.get(Counter::Seen), ingress.get(Counter::Captured)))
}

/// Waits for one packet to be captured on ingress, and returns its header and bytes.
fn captured(capture: &mut Capture) -> Result<(RecordHeader, Vec<u8>)> {
    let mut rings = capture.take_rings();
    wait::until("a captured packet", DEADLINE, || {
        Ok(rings.iter_mut().find_map(|ring| {
            let item = ring.buffer.next()?;
            let (header, packet) = RecordHeader::split(&item).expect("a whole record");
            Some((header, packet.to_vec()))
        }))
    })
}

#[test]
fn each_hook_captures_and_leaves_nothing_behind() -> Result<()> {
    use Hook::{Clsact, Tcx, XdpGeneric, XdpNative};
    let (best, _) = best_tc()?;
    let mut cases = vec![
        (HookChoice::Auto, XdpMode::Auto, TcChoice::Auto, best, best),
        (HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact, Clsact, Clsact),
        (HookChoice::Xdp, XdpMode::Auto, TcChoice::Auto, XdpNative, best),
        (HookChoice::Xdp, XdpMode::Generic, TcChoice::Clsact, XdpGeneric, Clsact),
    ];
    if best == Tcx {
        cases.push((HookChoice::Tc, XdpMode::Auto, TcChoice::Tcx, Tcx, Tcx));
    }
    for (hook, xdp_mode, tc, ingress, egress) in cases {
        let stage = Stage::new()?;
        let config = config(hook, xdp_mode, tc);
        stage.server.enter(|| {
            let mut capture = Capture::load(&config)?;
            let attachment = capture.attach(&interface(INTERFACE)?, Directions::Both)?;
            assert_eq!((attachment.ingress, attachment.egress), (Some(ingress), Some(egress)));

            stage.send_query(0)?;
            let (header, packet) = captured(&mut capture)?;
            assert_eq!(header.packet_length as usize, packet.len());
            assert_eq!(header.generation, 1);

            let errors = capture.detach_all();
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(ingress_counts(&capture)?, (1, 1), "counters outlive the attachment");
            assert_eq!(capture.unconfigured()?[Ingress as usize].get(Counter::Seen), 0);
            assert_eq!(capture.ring_lost().get(0)?, 0);
            Ok(())
        })?;
        stage.require_bare()?;
    }
    Ok(())
}

#[test]
fn only_the_wanted_direction_is_attached() -> Result<()> {
    let stage = Stage::new()?;
    let config = config(HookChoice::Auto, XdpMode::Auto, TcChoice::Auto);
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let attachment = capture.attach(&interface(INTERFACE)?, Directions::Egress)?;
        let (best, _) = best_tc()?;
        assert_eq!((attachment.ingress, attachment.egress), (None, Some(best)));
        assert_eq!(attachment.describe(Ingress), "off");
        assert_eq!(attachment.describe(Egress), best.to_string());
        Ok(())
    })
}

#[test]
fn a_taken_xdp_slot_leads_to_tc_and_the_holder_stays() -> Result<()> {
    for (mode, attached, errno) in [
        (bpf::XdpMode::Native, XdpAttached::Native, "EBUSY"),
        (bpf::XdpMode::Generic, XdpAttached::Generic, "EEXIST"),
    ] {
        let stage = Stage::new()?;
        let _holder = XdpHolder::attach(&stage.server, INTERFACE, mode)?;
        let config = config(HookChoice::Xdp, XdpMode::Auto, TcChoice::Auto);
        stage.server.enter(|| {
            let interface = interface(INTERFACE)?;
            let before = HookOwners::of(&interface)?.xdp;
            let [(found, Program { id, .. })] = before[..] else {
                panic!("one holder: {before:?}");
            };
            assert_eq!(found, attached);

            let mut capture = Capture::load(&config)?;
            let attachment = capture.attach(&interface, Directions::Both)?;
            let (best, note) = best_tc()?;
            assert_eq!(attachment.ingress, Some(best));
            assert_eq!(
                attachment.why,
                format!("XDP is occupied by program {id} in {attached} mode: {errno}{note}")
            );
            assert_eq!(HookOwners::of(&interface)?.xdp, before);
            stage.send_query(0)?;
            captured(&mut capture)?;
            assert!(capture.detach_all().is_empty());
            assert_eq!(HookOwners::of(&interface)?.xdp, before);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_jumbo_frame_is_captured_whole_in_native_mode() -> Result<()> {
    let stage = Stage::with_mtu(9_000)?;
    let config = config(HookChoice::Xdp, XdpMode::Native, TcChoice::Auto);
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let attachment = capture.attach(&interface(INTERFACE)?, Directions::Ingress)?;
        assert_eq!(attachment.ingress, Some(Hook::XdpNative), "{}", attachment.why);
        stage.send_query(8_000)?;
        let (header, packet) = captured(&mut capture)?;
        assert_eq!((header.packet_length, packet.len()), (8_042, 8_042));
        Ok(())
    })
}

#[test]
fn a_device_without_native_xdp_gets_the_generic_one() -> Result<()> {
    let stage = Stage::new()?;
    let config = config(HookChoice::Xdp, XdpMode::Auto, TcChoice::Auto);
    stage.server.enter(|| {
        let mut capture = Capture::load(&config)?;
        let attachment = capture.attach(&interface("lo")?, Directions::Ingress)?;
        assert_eq!(attachment.ingress, Some(Hook::XdpGeneric));
        assert_eq!(attachment.why, "xdp native refused: EOPNOTSUPP");
        Ok(())
    })
}

#[test]
fn settings_change_without_attaching_anew() -> Result<()> {
    let stage = Stage::new()?;
    let config = config(HookChoice::Xdp, XdpMode::Auto, TcChoice::Auto);
    stage.server.enter(|| {
        let interface = interface(INTERFACE)?;
        let mut capture = Capture::load(&config)?;
        // Links by their ids, filters by their handles: attaching anew would change them.
        let in_place = || -> Result<(BTreeSet<_>, Vec<_>)> {
            let mut links = bpf::held_by(Pid::this())?;
            links.retain(|(kind, _)| *kind == bpf::Kind::Link);
            Ok((links, HookOwners::of(&interface)?.filters))
        };
        capture.attach(&interface, Directions::Ingress)?;
        let ingress_only = in_place()?;
        assert_eq!((ingress_only.0.len(), ingress_only.1.len()), (1, 0));
        // A direction that was not attached yet is added.
        capture.set_directions(interface.ifindex, Directions::Both)?;
        let both = in_place()?;
        assert_eq!(both.0.len() + both.1.len(), 2);
        assert!(both.0.is_superset(&ingress_only.0));
        // From then on only settings change.
        for directions in [Directions::Both, Directions::Egress, Directions::Ingress] {
            capture.set_directions(interface.ifindex, directions)?;
            capture.attach(&interface, directions)?;
            assert_eq!(in_place()?, both);
        }
        capture.set_directions(interface.ifindex, Directions::Egress)?;
        stage.send_query(0)?;
        wait::until("an ignored packet", DEADLINE, || {
            let ingress = capture.counters()?[0].by_direction[Ingress as usize];
            Ok((ingress.get(Counter::Disabled) == 1).then_some(()))
        })
    })
}

#[test]
fn an_interface_that_went_away_is_an_error_at_attach_and_none_at_detach() -> Result<()> {
    for tc in [TcChoice::Auto, TcChoice::Clsact] {
        let stage = Stage::new()?;
        let config = config(HookChoice::Xdp, XdpMode::Auto, tc);
        stage.server.enter(|| {
            let interface = interface(INTERFACE)?;
            let mut capture = Capture::load(&config)?;
            capture.attach(&interface, Directions::Both)?;
            stage.server.ip(&["link", "delete", INTERFACE])?;
            let errors = capture.detach_all();
            assert!(errors.is_empty(), "{errors:?}");
            let error = capture.attach(&interface, Directions::Both).unwrap_err();
            assert_eq!(error.to_string(), "interface s0: no such interface");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn the_preflight_sees_what_is_there_and_attaches_nothing() -> Result<()> {
    let stage = Stage::with_mtu(9_000)?;
    let server = &stage.server;
    server.ip(&["link", "add", "br0", "type", "bridge"])?;
    server.ip(&["link", "set", INTERFACE, "master", "br0"])?;
    let (best, _) = best_tc()?;
    server.enter(|| {
        let auto = config(HookChoice::Auto, XdpMode::Auto, TcChoice::Auto);
        let port = Preflight::of(&interface(INTERFACE)?, &auto)?;
        assert_eq!(port.device.driver.as_deref(), Some("veth"));
        assert_eq!(port.candidates, [vec![best], vec![best]]);
        assert_eq!(port.why, ["tc is the default for veth devices", "port of bridge br0"]);

        let bridge = Preflight::of(&interface("br0")?, &auto)?;
        assert_eq!(bridge.why, ["tc is the default for bridge devices", "link is down"]);

        let xdp = config(HookChoice::Xdp, XdpMode::Auto, TcChoice::Auto);
        let port = Preflight::of(&interface(INTERFACE)?, &xdp)?;
        assert_eq!(port.candidates[0], [Hook::XdpNative, Hook::XdpGeneric, best]);
        assert_eq!(port.why[0], "MTU 9000 takes a driver with frags for XDP");
        assert_eq!(port.describe(Ingress), format!("xdp native > xdp generic > {best}"));

        let _holder = XdpHolder::attach(server, INTERFACE, bpf::XdpMode::Generic)?;
        let held = Preflight::of(&interface(INTERFACE)?, &xdp)?;
        assert_eq!(held.candidates[0], [best]);
        let (_, Program { id, .. }) = &held.owners.xdp[0];
        assert_eq!(held.why[0], format!("XDP is occupied by program {id} in generic mode"));

        let mut capture = Capture::load(&auto)?;
        let attachment = capture.attach(&interface(INTERFACE)?, Directions::Both)?;
        assert_eq!(attachment.why, "tc is the default for veth devices; port of bridge br0");
        Ok(())
    })
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    for (capabilities, expected) in [
        ("-all", "missing CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"),
        ("-all,+net_admin,+perfmon", "missing CAP_BPF"),
        ("-all,+bpf,+perfmon", "missing CAP_NET_ADMIN"),
        ("-all,+bpf,+net_admin,+perfmon", "loaded"),
    ] {
        let stage = Stage::new()?;
        // A copy, since the directory of this binary may be closed to others.
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let binary = directory.path().join("attach");
        fs::copy(env::current_exe()?, &binary)?;

        let mut command = stage.server.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(format!("--inh-caps={capabilities}"))
            .arg(format!("--ambient-caps={capabilities}"))
            .arg(format!("--bounding-set={capabilities}"))
            .arg(binary);
        let output = role("load", command)?;
        let line = output.lines().find_map(|line| line.strip_prefix("role: "));
        let line = line.with_context(|| output.clone())?;
        assert!(line.ends_with(expected), "with {capabilities}: {line}");
    }
    Ok(())
}

/// Runs this test binary again, in a part that [`play_a_role`] knows, and returns what it printed.
fn role(role: &str, mut command: Command) -> Result<String> {
    let output = command
        .args(["--exact", "play_a_role", "--ignored", "--nocapture"])
        .env("TAP53_TEST_ROLE", role)
        .stdin(Stdio::null())
        .output()?;
    Ok(String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?)
}

#[test]
#[ignore = "a part in other tests, which run it in a process of its own"]
fn play_a_role() {
    match env::var("TAP53_TEST_ROLE").as_deref() {
        Ok("attach_and_die") => {
            let config = config(HookChoice::Tc, XdpMode::Auto, TcChoice::Clsact);
            let mut capture = Capture::load(&config).unwrap();
            capture.attach(&interface(INTERFACE).unwrap(), Directions::Both).unwrap();
            println!("attached");
            raise(Signal::SIGKILL).unwrap();
        }
        Ok("load") => {
            let config = config(HookChoice::Auto, XdpMode::Auto, TcChoice::Auto);
            match Capture::load(&config) {
                Ok(_) => println!("role: loaded"),
                Err(error) => println!("role: {error}"),
            }
        }
        _ => {}
    }
}
