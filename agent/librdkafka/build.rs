//! Compiles librdkafka's `rdkafka_broker.c` again, from the sources that rdkafka-sys has just built,
//! with one expression replaced. See `src/lib.rs` for the reason.
//!
//! The object has all symbols of the original. The linker finds them here first and therefore leaves
//! the original in its archive. No line of librdkafka is kept in this repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const SOURCE: &str = "rdkafka_broker.c";

/// Requests that a partition may have unanswered, less its unanswered messages.
const FAULTY: &str = "RD_KAFKA_IDEMP_MAX_INFLIGHT - inflight";

/// No limit beside those that hold for every request: `max.in.flight.requests.per.connection`, which
/// is five at most for the idempotent producer, and the requests that wait to be sent.
const MENDED: &str = "max_requests";

/// By this symbol the linker is made to take the object, and cannot take another in its place.
const MARKER: &str = "\nconst char tap53_rdkafka_broker = 1;\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var_os("DEP_RDKAFKA_ROOT").ok_or("rdkafka-sys names no directory")?;
    let root = PathBuf::from(root);
    let original = root.join("src").join(SOURCE);
    println!("cargo::rerun-if-changed={}", original.display());
    let text = fs::read_to_string(&original)
        .map_err(|error| format!("cannot read {}: {error}", original.display()))?;
    if text.matches(FAULTY).count() != 1 {
        return Err(format!(
            "{} has another limit of in-flight requests than librdkafka 2.12: if it counts requests \
             now, remove this package, else adapt it",
            original.display()
        )
        .into());
    }
    let mended = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join(SOURCE);
    fs::write(&mended, text.replace(FAULTY, MENDED) + MARKER)?;
    let mut build = cc::Build::new();
    build.file(&mended).include(root.join("src")).warnings(false);
    for directory in include_directories(&root)? {
        build.include(directory);
    }
    build.try_compile("tap53_rdkafka_broker")?;
    Ok(())
}

/// Where librdkafka's configure script found the headers of its libraries.
fn include_directories(root: &Path) -> Result<Vec<String>, std::io::Error> {
    let makefile = fs::read_to_string(root.join("Makefile.config"))?;
    let flags =
        makefile.lines().filter(|line| line.starts_with("CFLAGS") || line.starts_with("CPPFLAGS"));
    let directories =
        flags.flat_map(str::split_whitespace).filter_map(|flag| flag.strip_prefix("-I"));
    Ok(directories.map(str::to_owned).collect())
}
