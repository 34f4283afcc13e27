//! SeaweedFS: S3 and an Iceberg REST catalog in one process.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::parts;
use crate::{http::JsonRequest, namespace::Namespace, process::Process, scratch, wait};

/// Fixed, since nothing else in the namespace uses it.
const S3: SocketAddr = address(8333);
const CATALOG: SocketAddr = address(8181);

const ACCESS_KEY_ID: &str = "tap53";
const SECRET_ACCESS_KEY: &str = "tap53-secret";
const WAREHOUSE: &str = "dns-tables";
const REGION: &str = "us-east-1";

/// Two seconds on a machine with nothing else to do.
const START_DEADLINE: Duration = Duration::from_secs(60);

const fn address(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// An S3 server and a catalog on 127.0.0.1 of a namespace, one in each namespace; dropping it kills it
/// and removes its files.
pub struct Store<'a> {
    pub(crate) namespace: &'a Namespace,
    program: PathBuf,
    directory: TempDir,
    process: Option<Process>,
}

impl<'a> Store<'a> {
    /// Starts an empty one, and waits until both answer.
    ///
    /// # Errors
    /// When it cannot be had or does not start; the message ends with its log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        let program = parts::environment()?.join("bin/weed");
        let directory = scratch::directory("lake")?;
        let mut store = Self { namespace, program, directory, process: None };
        store.restart()?;
        Ok(store)
    }

    /// Ends it with SIGKILL. What it had acknowledged stays on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Starts it again with its data.
    ///
    /// # Errors
    /// When it does not answer before the deadline.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = self.namespace.command("sh");
        // The program has sockets of fixed names in /tmp, which two namespaces would share: it gets a
        // /tmp of its own. `ip netns exec` gives each command its own mounts.
        command.args([
            "-c",
            "exec 3<\"$1\"; mount --bind \"$2\" /tmp; shift 2; exec /proc/self/fd/3 \"$@\"",
            "weed",
        ]);
        command.arg(&self.program).arg(self.directory.path());
        #[rustfmt::skip]
        command.args([
            "mini", "-dir=/tmp", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
            "-admin.ui=false", "-s3.port.lance=0", &format!("-tableBucket={WAREHOUSE}"),
        ]);
        command
            .env("HOME", "/tmp")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        let mut process = Process::spawn("SeaweedFS", command)?;
        wait::until("the S3 server and the catalog to answer", START_DEADLINE, || {
            ensure!(process.is_running()?, "it ended: {}", process.stderr().text());
            let config = format!("/v1/config?warehouse={WAREHOUSE}");
            let ready = self.answers(S3, "/healthz") && self.answers(CATALOG, &config);
            Ok(ready.then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn answers(&self, address: SocketAddr, path: &str) -> bool {
        let request =
            JsonRequest { method: "GET", path, content_type: "application/json", body: "" };
        request.send(self.namespace, address).is_ok_and(|answer| answer.code == 200)
    }

    /// Returns the address and credentials as environment variables, which the connectors of
    /// `deploy/downstream` read.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 8] {
        let catalog = format!("http://{CATALOG}");
        [
            ("LAKE_CATALOG_TOKEN_URI", format!("{catalog}/v1/oauth/tokens")),
            ("LAKE_CATALOG_URI", catalog),
            ("LAKE_CATALOG_CREDENTIAL", format!("{ACCESS_KEY_ID}:{SECRET_ACCESS_KEY}")),
            ("LAKE_WAREHOUSE", WAREHOUSE.to_owned()),
            ("LAKE_S3_ENDPOINT", format!("http://{S3}")),
            ("LAKE_S3_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("LAKE_S3_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("LAKE_S3_REGION", REGION.to_owned()),
        ]
    }

    /// Settings with which Spark has the tables in a catalog `lake`.
    pub(crate) fn spark_settings(&self) -> Vec<(String, String)> {
        const CLASS: &str = "org.apache.iceberg.spark.SparkCatalog";
        const EXTENSIONS: &str =
            "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions";
        let catalog = format!("http://{CATALOG}");
        let keys = [
            ("", CLASS.to_owned()),
            (".type", "rest".to_owned()),
            (".oauth2-server-uri", format!("{catalog}/v1/oauth/tokens")),
            (".uri", catalog),
            (".credential", format!("{ACCESS_KEY_ID}:{SECRET_ACCESS_KEY}")),
            (".warehouse", WAREHOUSE.to_owned()),
            (".io-impl", "org.apache.iceberg.aws.s3.S3FileIO".to_owned()),
            (".client.region", REGION.to_owned()),
            (".s3.endpoint", format!("http://{S3}")),
            (".s3.path-style-access", "true".to_owned()),
            (".s3.access-key-id", ACCESS_KEY_ID.to_owned()),
            (".s3.secret-access-key", SECRET_ACCESS_KEY.to_owned()),
        ];
        let keys = keys.map(|(key, value)| (format!("spark.sql.catalog.lake{key}"), value));
        let extensions = ("spark.sql.extensions".to_owned(), EXTENSIONS.to_owned());
        keys.into_iter().chain([extensions]).collect()
    }
}
