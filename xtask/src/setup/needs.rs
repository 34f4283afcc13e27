//! The needs of each purpose: how to detect each, and the package that provides it.

use std::path::Path;

use super::Purpose;
use crate::workspace::program;

/// Something that must be on the machine.
pub(super) struct Need {
    /// The first purpose that needs it.
    pub(super) purpose: Purpose,
    /// Use, which completes the sentence "needed for".
    pub(super) role: &'static str,
    probe: Probe,
    /// Debian packages, the preferred alternative.
    pub(super) packages: &'static [&'static str],
}

/// A test for a need.
enum Probe {
    /// This program can be found.
    Program(&'static str),
    /// This file is there.
    File(&'static str),
    /// The caller has looked itself.
    Known,
}

impl Need {
    /// True if it is there.
    pub(super) fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => program(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
            Probe::Known => false,
        }
    }

    /// False if only the caller knows whether it is met.
    pub(super) const fn is_testable(&self) -> bool {
        !matches!(self.probe, Probe::Known)
    }

    const fn program(
        purpose: Purpose,
        name: &'static str,
        packages: &'static [&'static str],
        role: &'static str,
    ) -> Self {
        Self { purpose, role, probe: Probe::Program(name), packages }
    }
}

/// A rustc with `core` for BPF; required if there is no compiler for BPF at all.
pub(super) const BPF_COMPILER: Need = Need {
    purpose: Purpose::Build,
    role: "compiling the kernel programs",
    probe: Probe::Known,
    packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
};

/// Required to build bpf-linker. Polly is a library that llvm-config names among those
/// to link, but llvm-22-dev only recommends.
pub(super) const LLVM: Need = Need {
    purpose: Purpose::Build,
    role: "building bpf-linker",
    probe: Probe::File("/usr/lib/llvm-22/lib/libPolly.a"),
    packages: &["llvm-22-dev", "libpolly-22-dev"],
};

/// Required if the API server of the tests is not built yet and no Go is new enough. If Debian's is too
/// old as well, the build reports it.
pub(super) const GO: Need = Need {
    purpose: Purpose::Test,
    role: "building the Kubernetes API server and nfpm",
    probe: Probe::Known,
    packages: &["golang-go"],
};

/// Required if no version is installed: each version has a separate directory.
pub(super) const POSTGRESQL: Need = Need {
    purpose: Purpose::Test,
    role: "the warehouse",
    probe: Probe::Known,
    packages: &["postgresql"],
};

/// Everything else.
pub(super) const NEEDS: &[Need] = &[
    Need::program(Purpose::Build, "cc", &["gcc", "libc6-dev"], "linking and librdkafka"),
    Need::program(Purpose::Build, "c++", &["g++"], "librdkafka and bpf-linker"),
    Need::program(Purpose::Build, "make", &["make"], "librdkafka"),
    Need::program(Purpose::Build, "pkg-config", &["pkg-config"], "librdkafka"),
    Need {
        purpose: Purpose::Build,
        role: "librdkafka and bpf-linker",
        probe: Probe::File("/usr/include/zlib.h"),
        packages: &["zlib1g-dev"],
    },
    Need {
        purpose: Purpose::Build,
        role: "librdkafka (TLS)",
        probe: Probe::File("/usr/include/openssl/ssl.h"),
        packages: &["libssl-dev"],
    },
    Need::program(Purpose::Dist, "buildah", &["buildah"], "the container image"),
    Need::program(Purpose::Dist, "setcap", &["libcap2-bin"], "file capabilities"),
    Need::program(
        Purpose::Dist,
        "aarch64-linux-gnu-g++",
        &["g++-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        "building for arm64",
    ),
    Need::program(Purpose::Dist, "qemu-aarch64", &["qemu-user"], "the manual of an arm64 program"),
    Need::program(Purpose::Demo, "ip", &["iproute2"], "network namespaces"),
    Need::program(Purpose::Demo, "unbound", &["unbound"], "the resolver"),
    Need::program(Purpose::Demo, "dig", &["bind9-dnsutils"], "the client"),
    Need::program(Purpose::DemoKafka, "java", &["default-jre-headless"], "the Kafka broker"),
    Need::program(Purpose::DemoKafka, "mvn", &["maven"], "fetching the Kafka broker"),
    Need::program(Purpose::DemoKafka, "kcat", &["kcat"], "reading Kafka back"),
    Need {
        purpose: Purpose::DemoKafka,
        role: "independent readers of Avro and DNS",
        probe: Probe::Program("python3"),
        packages: &["python3", "python3-venv"],
    },
    Need::program(Purpose::Test, "dnsperf", &["dnsperf"], "load"),
    Need::program(Purpose::Test, "iptables", &["iptables"], "kube-proxy"),
    Need::program(Purpose::Test, "nsenter", &["util-linux"], "the nodes of a cluster"),
    Need::program(Purpose::Test, "nft", &["nftables"], "the rules of a cluster's node"),
    Need::program(Purpose::Test, "tcpreplay", &["tcpreplay"], "load without a resolver"),
    Need::program(Purpose::Test, "fstrm_capture", &["fstrm-bin"], "reading a resolver's dnstap"),
    Need::program(Purpose::Test, "tshark", &["tshark"], "the independent dissector"),
    Need::program(Purpose::Test, "qemu-system-x86_64", &["qemu-system-x86"], "older kernels"),
    Need::program(Purpose::Test, "qemu-system-aarch64", &["qemu-system-arm"], "a kernel of arm64"),
    Need::program(Purpose::Test, "promtool", &["prometheus"], "checking metrics and alerts"),
    // 100 MB to download, and 290 MB of disk.
    Need::program(
        Purpose::Test,
        "chromium-headless-shell",
        &["chromium-headless-shell", "fonts-dejavu-core"],
        "looking at pages",
    ),
    Need::program(Purpose::Test, "busybox", &["busybox-static"], "older kernels"),
    Need::program(Purpose::Test, "cpio", &["cpio"], "older kernels"),
    Need::program(
        Purpose::Test,
        "openssl",
        &["openssl"],
        "certificates and service account tokens",
    ),
    Need::program(Purpose::Test, "ifconfig", &["net-tools"], "the addresses of a DNS tunnel"),
    Need::program(Purpose::Test, "faketime", &["faketime"], "a clock that is set"),
    Need::program(Purpose::Test, "mkfs.ext4", &["e2fsprogs"], "a disk whose power is cut"),
    Need::program(Purpose::Test, "mmdebstrap", &["mmdebstrap"], "a machine to install packages on"),
    Need::program(Purpose::Test, "rpm", &["rpm"], "reading the .rpm package"),
    Need::program(Purpose::Test, "setpriv", &["util-linux"], "running with fewer capabilities"),
];
