//! With a TLS server in this process, and certificates that the test creates.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(parameters, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Starts a server with a certificate for `name`. It answers one request for each connection.
    fn serve(&self, name: &str) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                connection.set_read_timeout(Some(DEADLINE)).unwrap();
                let session = ServerConnection::new(config.clone()).unwrap();
                // It fails if the client does not trust the server.
                let _ = answer(&mut StreamOwned::new(session, connection));
            }
        });
        address
    }
}

fn answer(connection: &mut (impl Read + Write)) -> std::io::Result<()> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    connection.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 5\r\n\r\nhello")?;
    connection.flush()
}

fn get(server: SocketAddr, ca_file: &Path) -> Result<(StatusCode, Bytes), Error> {
    let url = format!("https://{server}/");
    let request = Request::get(&url).body(Full::default()).unwrap();
    let client = Client::new(&[url], Some(ca_file), DEADLINE, 1_000)?;
    block_on(client.send(request))?.map(|answer| (answer.status, answer.body))
}

#[test]
fn a_server_is_trusted_for_the_authority_in_the_file_and_for_its_name() {
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let server = authority.serve("127.0.0.1");
    let answer = get(server, &authority.file()).unwrap();
    assert_eq!(answer, (StatusCode::OK, Bytes::from_static(b"hello")));

    let refused = get(server, &other.file()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "has a certificate that is not trusted (UnknownIssuer): check the file of authorities, \
         and the host in the URL"
    );

    let refused = get(authority.serve("registry.example"), &authority.file()).unwrap_err();
    let Error::Untrusted(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("registry.example"), "{why}");
}

#[test]
fn a_server_without_tls_is_not_answered_in_the_clear() {
    let authority = Authority::new("one");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let plain = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut greeting = [0; 3];
        connection.read_exact(&mut greeting).unwrap();
        connection.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n").unwrap();
        greeting
    });
    let refused = get(server, &authority.file()).unwrap_err();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused}");
    // A TLS handshake (RFC 8446 §5.1).
    assert_eq!(plain.join().unwrap()[0], 22);
}

#[test]
fn a_file_of_authorities_without_a_certificate_is_an_error() {
    let authority = Authority::new("one");
    let server = authority.serve("127.0.0.1");
    fs::write(authority.file(), "no certificate").unwrap();
    let refused = get(server, &authority.file()).unwrap_err().to_string();
    assert!(refused.ends_with("ca.pem: there is no certificate in it"), "{refused}");
    let refused = get(server, Path::new("/no/such")).unwrap_err().to_string();
    assert!(refused.starts_with("cannot use /no/such: "), "{refused}");
}
