//! Tries the address of the telemetry port.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::Check;
use crate::config::Config;

const AREA: &str = "telemetry";

pub(super) fn look(config: &Config) -> Check {
    let (telemetry, control) = (&config.telemetry, &config.control);
    if !telemetry.enabled {
        return Check::ok(AREA, "disabled");
    }
    let agent = control.enabled.then(|| agent(&control.socket)).flatten();
    look_at(telemetry.listen, agent)
}

/// Binds the address for a moment; `agent` is the process of the running agent, if there is one.
fn look_at(address: SocketAddr, agent: Option<i32>) -> Check {
    let what = format!("telemetry.listen {address}");
    let error = match TcpListener::bind(address) {
        Ok(_) => return Check::ok(AREA, format!("{what}: free")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::AddrInUse => in_use(what, address, agent),
        ErrorKind::AddrNotAvailable => Check::fail(
            AREA,
            what,
            "this host has no such address",
            format!("telemetry: {{listen: \"127.0.0.1:{}\"}}", address.port()),
        ),
        ErrorKind::PermissionDenied => Check::warn(
            AREA,
            what,
            format!("could not be tried: {error}"),
            "sudo tap53 doctor   # or a port from 1024 on",
        ),
        _ => Check::fail(AREA, what, format!("cannot be listened at: {error}"), "ip address"),
    }
}

fn in_use(what: String, address: SocketAddr, agent: Option<i32>) -> Check {
    let holder = holder(address.port());
    if let Some(pid) = holder.filter(|_| holder == agent) {
        return Check::ok(AREA, format!("{what}: the running agent (process {pid}) listens"));
    }
    let wrong = match holder {
        Some(pid) => format!("is in use by {} (process {pid})", name(pid)),
        None => "is in use, by a process that this user may not see".to_owned(),
    };
    let fix = format!(
        "ss -ltnp 'sport = :{}'   # end that process, or set another telemetry.listen",
        address.port()
    );
    // Only root can see whether the agent holds it.
    if holder.is_none() && agent.is_some() {
        return Check::warn(AREA, what, wrong, format!("sudo tap53 doctor; {fix}"));
    }
    Check::fail(AREA, what, wrong, fix)
}

/// Returns the process that listens at the control socket.
fn agent(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    // The peer is the process that called listen(2). 0 is one of another PID namespace.
    getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
}

/// Returns a process that listens at a TCP port; `None` if it belongs to another user.
fn holder(port: u16) -> Option<i32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let links: Vec<_> =
        listeners(&text, port).into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|link| links.iter().any(|name| link.as_os_str() == name.as_str()))
    })
}

/// Returns the inodes of the sockets that listen at a port, from the tables of proc(5).
fn listeners(tables: &str, port: u16) -> Vec<u64> {
    /// State TCP_LISTEN of the kernel.
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
        let (_, local_port) = local.rsplit_once(':')?;
        let is_meant = state == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
        is_meant.then(|| inode.parse().ok())?
    };
    tables.lines().filter_map(of_line).collect()
}

fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { "a process".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        process,
    };

    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn an_address_in_use_is_reported_with_its_process_unless_that_is_the_agent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let this = i32::try_from(process::id()).unwrap();
        let check = look_at(address, None);
        assert_eq!(check.verdict, Verdict::Fail);
        let wrong = check.wrong.unwrap();
        assert!(wrong.contains(&format!("(process {this})")), "{wrong}");
        assert!(check.fix.unwrap().contains(&address.port().to_string()));
        let check = look_at(address, Some(this));
        assert_eq!(check.verdict, Verdict::Ok, "{check}");
        assert!(check.what.contains("the running agent"), "{check}");
        drop(listener);
        let check = look_at(address, None);
        assert_eq!((check.verdict, check.wrong.as_deref()), (Verdict::Ok, None), "{check}");
    }

    #[test]
    fn an_address_of_another_host_is_a_failure() {
        let check = look_at(SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 9_530), None);
        assert_eq!(check.verdict, Verdict::Fail, "{check}");
        assert_eq!(check.fix.as_deref(), Some("telemetry: {listen: \"127.0.0.1:9530\"}"));
    }

    #[test]
    fn listeners_are_found_in_the_tables_of_the_kernel() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:253A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:253A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
";
        assert_eq!(listeners(table, 9_530), [4_711]);
        assert_eq!(listeners(table, 53), [4_713]);
        assert!(listeners(table, 80).is_empty() && listeners("", 53).is_empty());
    }
}
