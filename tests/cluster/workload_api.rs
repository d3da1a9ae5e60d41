//! An agent for tests: the SPIFFE Workload API over a socket, by the same messages and the same transport as a SPIRE agent's.
//! It says what a test tells it to, to whoever asks as a workload has to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::watch::wait_until;

/// How long the socket may take to be there.
const SERVES_MAX: Duration = Duration::from_secs(5);

/// What an agent says to everybody who asks for X.509-SVIDs.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Identities {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<Svid>,
    /// Authorities of other trust domains, by the SPIFFE ID of the trust domain.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated: BTreeMap<String, Vec<u8>>,
}

/// One identity.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Svid {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) hint: String,
}

/// The same for bundles alone.
#[derive(Clone, PartialEq, prost::Message)]
struct Bundles {
    #[prost(btree_map = "string, bytes", tag = "2")]
    bundles: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

impl Svid {
    /// That of the files of a certificate and its key, with the authorities in a third.
    pub(crate) fn read(id: &str, certificate: &Path, anchors: &Path) -> Self {
        let key = PrivateKeyDer::from_pem_file(certificate.with_extension("key")).expect("a key");
        let (chain, bundle) = (authorities(certificate), authorities(anchors));
        Self { id: id.to_owned(), chain, key: key.secret_der().to_vec(), bundle, hint: String::new() }
    }
}

/// The certificates of a file, one after the other.
pub(crate) fn authorities(path: &Path) -> Vec<u8> {
    let all = CertificateDer::pem_file_iter(path).expect("a file");
    all.flat_map(|der| der.expect("a certificate").to_vec()).collect()
}

/// A running agent. Its socket stays where it is when it dies and comes back.
pub(crate) struct Agent {
    socket: PathBuf,
    says: watch::Sender<Option<Identities>>,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Agent {
    /// Serves at this socket; says nothing yet.
    pub(crate) fn serve(socket: PathBuf) -> Self {
        let mut agent = Self { socket, says: watch::Sender::new(None), serving: None };
        agent.come_back();
        agent
    }

    /// Its address, as workloads are told it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Says this from now on, and to whoever has asked before.
    pub(crate) fn say(&self, identities: Identities) {
        self.says.send_replace(Some(identities));
    }

    pub(crate) fn die(&mut self) {
        if let Some((stop, thread)) = self.serving.take() {
            stop.cancel();
            thread.join().expect("no panic");
        }
        fs::remove_file(&self.socket).expect("a socket");
    }

    pub(crate) fn come_back(&mut self) {
        let (socket, says, stop) = (self.socket.clone(), self.says.subscribe(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled(serve(socket, WorkloadApi(says))));
        });
        self.serving = Some((stop, thread));
        wait_until("the agent serves", SERVES_MAX, || {
            if self.socket.exists() { Ok(()) } else { Err("no socket".to_owned()) }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some((stop, _thread)) = self.serving.take() {
            stop.cancel();
        }
    }
}

async fn serve(socket: PathBuf, service: WorkloadApi) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let callers = stream::unfold(listener, |listener| async {
        let caller = listener.accept().await.map(|(caller, _)| caller);
        Some((caller, listener))
    });
    Server::builder().add_service(service).serve_with_incoming(callers).await.expect("serves");
}

/// The service, by the names that it has for everybody.
#[derive(Clone)]
struct WorkloadApi(watch::Receiver<Option<Identities>>);

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<http::Request<Body>> for WorkloadApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let asked = self.clone();
        Box::pin(async move {
            let answer = match request.uri().path() {
                "/SpiffeWorkloadAPI/FetchX509SVID" => {
                    Grpc::new(ProstCodec::default()).server_streaming(FetchSvids(asked), request).await
                }
                "/SpiffeWorkloadAPI/FetchX509Bundles" => {
                    Grpc::new(ProstCodec::default()).server_streaming(FetchBundles(asked), request).await
                }
                _ => Status::unimplemented("not served").into_http(),
            };
            Ok(answer)
        })
    }
}

type Said<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is said now and whenever it changes, as its caller wants it.
fn said<T: 'static>(
    api: WorkloadApi,
    request: &Request<Nothing>,
    form: fn(Identities) -> T,
) -> Result<Said<T>, Status> {
    // Section 3 of the specification: it keeps those out who make the agent ask itself on their behalf.
    if request.metadata().get("workload.spiffe.io").is_none_or(|mark| mark != "true") {
        return Err(Status::invalid_argument("security header missing from request"));
    }
    if api.0.borrow().is_none() {
        return Err(Status::permission_denied("no identity issued"));
    }
    let mut receiver = api.0;
    receiver.mark_changed();
    Ok(Box::pin(stream::unfold(receiver, move |mut receiver| async move {
        receiver.changed().await.ok()?;
        let identities = receiver.borrow_and_update().clone()?;
        Some((Ok(form(identities)), receiver))
    })))
}

struct FetchSvids(WorkloadApi);

impl ServerStreamingService<Nothing> for FetchSvids {
    type Response = Identities;
    type ResponseStream = Said<Identities>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Nothing>) -> Self::Future {
        let said = said(self.0.clone(), &request, |identities| identities);
        Box::pin(async move { said.map(Response::new) })
    }
}

struct FetchBundles(WorkloadApi);

impl ServerStreamingService<Nothing> for FetchBundles {
    type Response = Bundles;
    type ResponseStream = Said<Bundles>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Nothing>) -> Self::Future {
        let said = said(self.0.clone(), &request, |identities| {
            let own = identities.svids.into_iter().map(|svid| {
                let trust_domain = svid.id.split('/').take(3).collect::<Vec<_>>().join("/");
                (trust_domain, svid.bundle)
            });
            Bundles { bundles: own.chain(identities.federated).collect() }
        });
        Box::pin(async move { said.map(Response::new) })
    }
}
