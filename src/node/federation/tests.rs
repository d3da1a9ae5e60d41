//! One question to an endpoint of another PKI, and whatever it answers.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::settings::parse as settings_of;

/// A CA, and in its name an endpoint on loopback that answers every question with these bytes.
struct Endpoint {
    folder: tempfile::TempDir,
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn answering(answer: Vec<u8>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &ca).expect("a certificate").der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).expect("a version");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = config.with_no_client_auth().with_single_cert(vec![leaf], key).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (acceptor, count) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&asked));
        tokio::runtime::Handle::current().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let mut head = [0; 4_096];
                drop(stream.read(&mut head).await);
                drop(stream.write_all(&answer).await);
                drop(stream.flush().await);
                // Held open: who reads on waits for the end that the head has promised.
                drop(stream.read(&mut head).await);
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), ca.pem()).expect("written");
        Self { folder, address, asked }
    }

    async fn saying(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        Self::answering([head.as_bytes(), body].concat()).await
    }

    fn poll(&self, ca: &str) -> Poll {
        let text = format!(
            "[bundle]\nversion = 1\n[[runtime.identity.partner]]\nsite = \"south\"\nprofile = \"https_web\"\n\
             bundle_endpoint = \"https://{}/b\"\nca_path = {ca:?}\nmax_age_s = 60",
            self.address
        );
        let settings = settings_of(&text, "runtime.toml", "node", []).expect("valid");
        tls::install_provider();
        let mut polls = polls(self.folder.path(), &self.folder.path().join("state"), &settings, None);
        Poll { answer_max: Duration::from_secs(2), ..polls.remove(0) }
    }

    async fn fails(&self, wanted: &str) {
        let failed = self.poll("ca.pem").once().await.expect_err(wanted).to_string();
        assert!(failed.contains(wanted), "wanted {wanted:?}, got {failed}");
        assert!(!self.folder.path().join("state/bundles/south.json").exists(), "nothing is kept after {failed}");
    }
}

fn numbered(sequence: u64) -> String {
    format!("{{\"keys\":[],\"spiffe_sequence\":{sequence},\"spiffe_refresh_hint\":30}}")
}

#[tokio::test]
async fn what_an_endpoint_of_a_known_ca_says_is_kept_and_does_not_go_back() {
    let endpoint = Endpoint::saying("200 OK", "", numbered(5).as_bytes()).await;
    assert_eq!(endpoint.poll("ca.pem").once().await.expect("taken"), Some(Millis::from_secs(30)));
    let path = endpoint.folder.path().join("state/bundles/south.json");
    let kept = fs::read_to_string(&path).expect("kept");
    assert!(kept.contains("\"spiffe_sequence\": 5"), "{kept}");
    // Later, with another state of things: what is kept is ahead of what the endpoint says.
    fs::write(&path, kept.replace("\"spiffe_sequence\": 5", "\"spiffe_sequence\": 6")).expect("written");
    let refused = endpoint.poll("ca.pem").once().await.expect_err("it goes back").to_string();
    assert!(refused.contains("6 is known already"), "{refused}");
    assert!(fs::read_to_string(&path).expect("kept").contains("\"spiffe_sequence\": 6"));
}

#[tokio::test]
async fn who_is_of_another_ca_is_not_asked_at_all() {
    let (endpoint, other) = (Endpoint::saying("200 OK", "", b"{}").await, Endpoint::saying("200 OK", "", b"{}").await);
    let ca = other.folder.path().join("ca.pem").display().to_string();
    let refused = endpoint.poll(&ca).once().await.expect_err("another CA").to_string();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(endpoint.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_is_no_bundle_changes_nothing() {
    let good = numbered(5);
    for (status, headers, body, wanted) in [
        ("404 Not Found", "", good.clone(), "got 404"),
        ("500 Oops", "", good.clone(), "got 500"),
        ("204 No Content", "", String::new(), "got 204"),
        ("200 OK", "", "<html>".to_owned(), "not a trust bundle"),
        ("200 OK", "", good.clone() + &" ".repeat(BUNDLE_BYTES_MAX), "got more"),
        ("200 OK", "content-encoding: gzip\r\n", "\u{1f}\u{8b}".to_owned(), "not a trust bundle"),
    ] {
        Endpoint::saying(status, headers, body.as_bytes()).await.fails(wanted).await;
    }
}

/// A redirect would let whoever has the endpoint's path name another host, and another proof.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Endpoint::saying("200 OK", "", numbered(5).as_bytes()).await;
    let location = format!("location: https://{}/b\r\n", other.address);
    Endpoint::saying("302 Found", &location, b"").await.fails("got 302").await;
    let to_itself = Endpoint::saying("307 Temporary Redirect", "location: /c\r\n", b"").await;
    to_itself.fails("got 307").await;
    assert_eq!((other.asked.load(Ordering::Relaxed), to_itself.asked.load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_given_up() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":";
    let endpoint = Endpoint::answering(begun.as_bytes().to_vec()).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), endpoint.fails("error")).await;
    assert!(waited.is_ok(), "it is bounded");
    let silent = Endpoint::answering(Vec::new()).await;
    assert!(tokio::time::timeout(Duration::from_secs(10), silent.fails("error")).await.is_ok());
}
