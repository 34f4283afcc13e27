//! Compiles two files of librdkafka again, from the sources that rdkafka-sys has just built, with one
//! expression of each replaced. See `src/lib.rs` for the reasons.
//!
//! Each object has all symbols of the original. The linker finds them here first and therefore leaves
//! the original in its archive. No line of librdkafka is kept in this repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A replacement in one file of librdkafka.
struct Mend {
    file: &'static str,
    faulty: &'static str,
    mended: &'static str,
    /// By this symbol the linker is made to take the object, and cannot take another in its place.
    marker: &'static str,
}

const MENDS: [Mend; 2] = [
    Mend {
        file: "rdkafka_broker.c",
        // Requests that a partition may have unanswered, less its unanswered messages.
        faulty: "RD_KAFKA_IDEMP_MAX_INFLIGHT - inflight",
        // No limit beside those that hold for every request: `max.in.flight.requests.per.connection`,
        // which is five at most for the idempotent producer, and the requests that wait to be sent.
        mended: "max_requests",
        marker: "tap53_rdkafka_broker",
    },
    Mend {
        file: "rdkafka_request.c",
        // The number of API versions that a broker says it has: -1 for none.
        faulty: "rd_kafka_buf_read_arraycnt(rkbuf, &ApiArrayCnt, 1000);",
        mended: "rd_kafka_buf_read_arraycnt(rkbuf, &ApiArrayCnt, 1000);\n\
                 if (ApiArrayCnt < 0) ApiArrayCnt = 0;",
        marker: "tap53_rdkafka_request",
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var_os("DEP_RDKAFKA_ROOT").ok_or("rdkafka-sys names no directory")?;
    let (root, sources) = (Path::new(&root), Path::new(&root).join("src"));
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let mut build = cc::Build::new();
    build.include(&sources).warnings(false);
    for directory in include_directories(root)? {
        build.include(directory);
    }
    for Mend { file, faulty, mended, marker } in MENDS {
        let original = sources.join(file);
        println!("cargo::rerun-if-changed={}", original.display());
        let text = fs::read_to_string(&original)
            .map_err(|error| format!("cannot read {}: {error}", original.display()))?;
        if text.matches(faulty).count() != 1 {
            return Err(format!(
                "{} is not that of librdkafka 2.12 where this package mends it: if the fault is \
                 mended now, remove it from build.rs, else adapt it",
                original.display()
            )
            .into());
        }
        let text = format!("{}\nconst char {marker} = 1;\n", text.replace(faulty, mended));
        fs::write(out.join(file), text)?;
        build.file(out.join(file));
    }
    build.try_compile("tap53_rdkafka")?;
    Ok(())
}

/// Directories in which librdkafka's configure script found the headers of its libraries.
fn include_directories(root: &Path) -> Result<Vec<String>, std::io::Error> {
    let makefile = fs::read_to_string(root.join("Makefile.config"))?;
    let flags =
        makefile.lines().filter(|line| line.starts_with("CFLAGS") || line.starts_with("CPPFLAGS"));
    let directories =
        flags.flat_map(str::split_whitespace).filter_map(|flag| flag.strip_prefix("-I"));
    Ok(directories.map(str::to_owned).collect())
}
