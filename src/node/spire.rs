//! Identities from a SPIRE agent on this machine: the SPIFFE Workload API over its socket.
//!
//! The agent is asked who this runtime is and whose authorities count, and says it again whenever that changes. What it says is
//! held against the same rules as files are. What cannot be taken changes nothing, and an agent that is away changes nothing
//! either, until the certificate in use ends. Nothing of it is written to a disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::Stream;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::transport::Endpoint;
use spiffe::{Certificate, WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::time::{sleep, timeout};

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::{AnchorFault, Trust};
use crate::domain::identity::{Naming, SpiffeId, Subject, TrustDomain, renewal};
use crate::node::clock::Clock;
use crate::node::offers::Offers;
use crate::settings::Settings;
use crate::tls::Offered;

/// Names the socket, as for every workload (SPIFFE Workload Endpoint, section 4).
const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// How long a start waits for the first identity. The agent may be starting beside this node.
const FIRST_MAX: Duration = Duration::from_secs(20);

/// The pause before the agent is asked again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long the agent may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Shortest time after which an agent that says nothing is dialled again.
const SILENCE_MIN: Duration = Duration::from_secs(30);

/// Most ids shown of those that the agent offers.
const SHOWN_MAX: usize = 4;

type Authorities = Vec<CertificateDer<'static>>;
type Contexts = Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send>>;

/// Takes what the agent offers to this runtime.
pub(super) struct Follower {
    socket: PathBuf,
    naming: Naming,
    own: Subject,
    clock: Clock,
    offers: Arc<Offers>,
    stream: Option<Contexts>,
}

impl Follower {
    /// The one that the environment names for this runtime.
    pub(super) fn new(settings: &Settings, environment: &[(String, String)]) -> Result<Self, String> {
        let socket = socket(environment)?;
        let (naming, own) = (settings.identity.naming(), Subject::of_runtime(&settings.runtime_id));
        Ok(Self { socket, naming, own, clock: Clock::start(), offers: Arc::default(), stream: None })
    }

    /// Where it puts what it takes.
    pub(super) fn offers(&self) -> Arc<Offers> {
        Arc::clone(&self.offers)
    }

    /// Waits for the first identity, for a bounded time.
    pub(super) async fn first(&mut self) -> Result<(), String> {
        let mut reason = "it said nothing".to_owned();
        let waited = timeout(FIRST_MAX, async {
            let mut pause = PAUSE_MIN;
            while let Err(next) = self.next().await {
                if next != reason {
                    tracing::warn!(socket = %self.socket.display(), reason = next, "waiting for an identity");
                    reason = next;
                }
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(Duration::from_secs(2));
            }
        });
        if waited.await.is_ok() {
            return Ok(());
        }
        let (socket, seconds, id) = (self.socket.display(), FIRST_MAX.as_secs(), self.id());
        Err(format!(
            "no identity within {seconds} s from the agent at {socket} ({VARIABLE}): {reason}. Check that the agent runs and \
             serves this socket, that this user may open it, and that an entry gives this process {id}"
        ))
    }

    /// Takes what comes until the node stops.
    pub(super) async fn follow(mut self) {
        let mut pause = PAUSE_MIN;
        let mut said = String::new();
        loop {
            match self.next().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    said.clear();
                }
                Err(reason) => {
                    if said != reason {
                        tracing::warn!(socket = %self.socket.display(), reason, "no new identity; the last one stays in use");
                        said = reason;
                    }
                    if self.stream.is_none() {
                        sleep(pause).await;
                        pause = pause.saturating_mul(2).min(PAUSE_MAX);
                    }
                }
            }
        }
    }

    /// The next word of the agent, taken. A word that cannot be taken leaves the stream open, because a better one may follow; a
    /// stream that ended is opened anew at the next call.
    async fn next(&mut self) -> Result<(), String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(&self.socket).await?,
        };
        let word = match timeout(self.silence_max(), stream.next()).await {
            Ok(Some(word)) => word,
            Ok(None) => return Err("the agent has ended the stream".to_owned()),
            Err(_elapsed) => return Err("the agent says nothing, and the certificate is in its last third".to_owned()),
        };
        match word {
            Ok(context) => {
                self.stream = Some(stream);
                self.take(&context)
            }
            Err(error) => {
                if !is_end(&error) {
                    self.stream = Some(stream);
                }
                Err(error.to_string())
            }
        }
    }

    fn take(&self, context: &X509Context) -> Result<(), String> {
        let offered = self.offered(context)?;
        let now = self.clock.now().wall;
        offered.check(&self.naming, &self.own, now).map_err(|fault| format!("the SVID is refused: {fault}"))?;
        if self.offers.put(offered) {
            tracing::info!(id = self.id(), "the agent has given an identity");
        }
        Ok(())
    }

    /// This runtime's own part of what is offered.
    fn offered(&self, context: &X509Context) -> Result<Offered, String> {
        let id = self.id();
        let svid = context.svids().iter().find(|svid| svid.spiffe_id().to_string() == id).ok_or_else(|| {
            let ids: Vec<_> = context.svids().iter().take(SHOWN_MAX).map(|svid| svid.spiffe_id().to_string()).collect();
            format!("the agent gives {}, wanted {id}: register an entry with that SPIFFE ID", ids.join(", "))
        })?;
        let bundles = context.bundle_set().iter().filter_map(|(trust_domain, bundle)| {
            let trust_domain: TrustDomain = trust_domain.as_ref().parse().ok()?;
            let site = self.site_of(&trust_domain)?;
            let authorities = self.usable(&site, bundle.authorities().iter().map(der).collect())?;
            Some((site, authorities))
        });
        let mut anchors: Vec<(SiteId, Authorities)> = bundles.collect();
        anchors.sort_by(|(one, _), (other, _)| one.cmp(other));
        let chain = svid.cert_chain().iter().map(der).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
        Ok(Offered { chain, key, anchors })
    }

    /// For which site alone a trust domain's authorities count here. Where all sites share one, those of the agent are the own
    /// site's, and never another's.
    fn site_of(&self, trust_domain: &TrustDomain) -> Option<SiteId> {
        let is_own = self.naming.domain_of(&self.own.site).is_ok_and(|own| own == *trust_domain);
        if is_own { Some(self.own.site.clone()) } else { self.naming.site_of(trust_domain) }
    }

    /// What is offered as another site's authorities, or else what was last: what a partner does wrong must not keep this node
    /// from its next certificate. With the own site's the whole offer stands or falls.
    fn usable(&self, site: &SiteId, authorities: Authorities) -> Option<Authorities> {
        let fault = Trust::new(self.naming.clone()).set_anchors(site.clone(), &authorities).err();
        match fault {
            Some(AnchorFault::TooMany { .. } | AnchorFault::Profile { .. } | AnchorFault::Naming(_))
                if *site != self.own.site =>
            {
                tracing::warn!(%site, reason = fault.map(|it| it.to_string()), "a federated bundle was refused");
                let newest = self.offers.newest()?;
                newest.anchors.iter().find(|(known, _)| known == site).map(|(_, last)| last.clone())
            }
            Some(_) | None => Some(authorities),
        }
    }

    fn id(&self) -> String {
        self.naming.id_of(&self.own).as_ref().map(SpiffeId::to_string).unwrap_or_default()
    }

    /// How long the agent may say nothing: until the last third of the certificate's life, by which it should have been
    /// followed. Then the agent may have forgotten this stream.
    fn silence_max(&self) -> Duration {
        let left = self.offers.newest().and_then(|offered| {
            let svid = crate::domain::identity::svid::read_leaf(offered.chain.first()?, &self.naming).ok()?;
            Some(renewal::until_due(svid.not_before, svid.not_after, self.clock.now().wall))
        });
        left.map_or(FIRST_MAX, |left| Duration::from_millis(left.0).max(SILENCE_MIN))
    }
}

async fn open(socket: &Path) -> Result<Contexts, String> {
    check_place(socket)?;
    let opened = timeout(ANSWER_MAX, async {
        let client = WorkloadApiClient::connect(Endpoint::Unix(socket.to_owned())).await?;
        client.stream_x509_contexts().await
    });
    let opened = opened.await.map_err(|_elapsed| "the agent does not answer".to_owned())?;
    Ok(Box::pin(opened.map_err(|error| cause(&error))?))
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from(certificate.as_bytes().to_vec())
}

/// Whether nothing more comes after this fault: it is one of the way and not of the content.
fn is_end(error: &WorkloadApiError) -> bool {
    matches!(
        error,
        WorkloadApiError::Transport(_)
            | WorkloadApiError::NoIdentityIssued
            | WorkloadApiError::PermissionDenied(_)
            | WorkloadApiError::EmptyResponse
    )
}

/// The words of a fault, down to what the system said.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = error.source();
    }
    text
}

/// The place of the socket. There is no usual one: whoever could make a file there could say who this node is.
fn socket(environment: &[(String, String)]) -> Result<PathBuf, String> {
    let example = "unix:///run/spire/agent-sockets/api.sock";
    let value = environment.iter().find(|(name, _)| name == VARIABLE).map(|(_, value)| value);
    let value =
        value.ok_or_else(|| format!("wanted the agent's socket in {VARIABLE}, such as {example}, got nothing"))?;
    match Endpoint::parse(value) {
        Ok(Endpoint::Unix(path)) => Ok(path),
        // Anybody on the machine can listen on a port, and whoever answers says who this node is.
        Ok(_) => Err(format!("{VARIABLE}: wanted a socket such as {example}, got {value}")),
        Err(error) => Err(format!("{VARIABLE}: wanted a socket such as {example}, got {value} ({error})")),
    }
}

/// Whoever may change the folder of the socket may put another one there, and whoever made the socket answers. A socket behind a
/// link is asked about where it is, too.
fn check_place(socket: &Path) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    check_folder_of(socket, own)?;
    let real = socket.canonicalize().map_err(|error| fault(socket, &error))?;
    let agent = check_folder_of(&real, own)?;
    check_socket(&real, metadata(&real)?.uid(), &[0, own, agent])
}

/// Gives whose folder it is.
fn check_folder_of(socket: &Path, own: u32) -> Result<u32, String> {
    let Some(folder) = socket.parent() else { return Ok(own) };
    let found = metadata(folder)?;
    check_mode(folder, found.mode())?;
    let real = folder.canonicalize().map_err(|error| fault(folder, &error))?;
    let above: Result<Vec<_>, String> = real.ancestors().skip(1).map(Above::read).collect();
    check_owner(folder, found.uid(), own, &above?)?;
    Ok(found.uid())
}

fn metadata(place: &Path) -> Result<std::fs::Metadata, String> {
    std::fs::metadata(place).map_err(|error| fault(place, &error))
}

fn fault(place: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", place.display())
}

/// A folder above that of the socket.
#[derive(Debug)]
struct Above {
    place: PathBuf,
    mode: u32,
    owner: u32,
}

impl Above {
    fn read(place: &Path) -> Result<Self, String> {
        let found = metadata(place)?;
        Ok(Self { place: place.to_owned(), mode: found.mode(), owner: found.uid() })
    }

    /// Whether others may put another folder in the place of one that is there, or of one that is missing.
    fn lets_others(&self, may_be_missing: bool) -> bool {
        const STICKY: u32 = 0o1000;
        self.mode & 0o022 != 0 && (may_be_missing || self.mode & STICKY == 0)
    }
}

/// Root may be anybody anyway, and so may the node's own user be the node: nobody else can have put their folder there. That of an
/// agent under a user of its own counts where nobody else can have made it, either: in no folder above may others write, as they
/// may in `/tmp`.
fn check_owner(folder: &Path, owner: u32, own: u32, above: &[Above]) -> Result<(), String> {
    let is_another = owner != 0 && owner != own;
    let is_open = |it: &&Above| ![0, own, owner].contains(&it.owner) || it.lets_others(is_another);
    let Some(open) = above.iter().find(is_open) else { return Ok(()) };
    let (folder, place, mode, whose) = (folder.display(), open.place.display(), open.mode & 0o7777, open.owner);
    Err(format!(
        "{folder}: belongs to user {owner}, and who may write to {place} (mode {mode:o}, of user {whose}) could have made it: put \
         the agent's socket below folders that are root's alone, such as /run/spire"
    ))
}

fn check_socket(socket: &Path, owner: u32, wanted: &[u32; 3]) -> Result<(), String> {
    if wanted.contains(&owner) {
        return Ok(());
    }
    let [_root, own, agent] = wanted;
    let socket = socket.display();
    Err(format!(
        "{socket}: belongs to user {owner}, who could say who this node is: wanted root, user {own} or the folder's owner {agent}: \
         name the agent's own socket"
    ))
}

/// Nobody but the owner may write, also where files of others cannot be removed (mode 1777): while the agent is away anybody
/// could make the socket that is missing.
fn check_mode(folder: &Path, mode: u32) -> Result<(), String> {
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let (folder, mode) = (folder.display(), mode & 0o7777);
    Err(format!("{folder}: others on this machine may put another socket there (mode {mode:o}): set its mode to 755"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_owner_may_write_to_the_folder_whatever_protects_its_files() {
        let folder = Path::new("/run/agent");
        for mode in [0o700, 0o755, 0o40_755, 0o2755, 0o1755] {
            assert_eq!(check_mode(folder, mode), Ok(()), "{mode:o}");
        }
        for (mode, shown) in [(0o775, "775"), (0o757, "757"), (0o777, "777"), (0o41_777, "1777"), (0o1770, "1770")] {
            let refused = check_mode(folder, mode).expect_err("refused");
            assert!(refused.contains("/run/agent: others on this machine"), "{refused}");
            assert!(refused.contains(&format!("(mode {shown}): set its mode to 755")), "{refused}");
        }
    }

    #[test]
    fn a_folder_counts_where_nobody_but_its_owner_and_root_can_have_made_it() {
        let folder = Path::new("/run/agent");
        let judged = |owner: u32, (mode, whose): (u32, u32)| {
            let above = |place: &str, mode, owner| Above { place: place.into(), mode, owner };
            check_owner(folder, owner, 9, &[above("/run", mode, whose), above("/", 0o755, 0)])
        };
        // Root's folder, the node's own, and one of an agent with a user of its own.
        for owner in [0, 9, 8] {
            for above in [(0o755, 0), (0o40_700, 0), (0o755, 9), (0o755, owner)] {
                assert_eq!(judged(owner, above), Ok(()), "{owner} {above:?}");
            }
            for above in [(0o755, 7), (0o777, 0), (0o775, 0), (0o757, 0)] {
                let refused = judged(owner, above).expect_err("refused");
                assert!(refused.contains(&format!("belongs to user {owner}, and who may write to /run")), "{refused}");
                assert!(refused.contains("such as /run/spire"), "{refused}");
            }
        }
        // In /tmp nobody takes away what is another's, and anybody makes what is not there.
        assert_eq!([0, 9, 8].map(|owner| judged(owner, (0o41_777, 0)).is_ok()), [true, true, false]);
    }

    #[test]
    fn the_socket_belongs_to_root_to_the_node_or_to_whom_the_folder_belongs() {
        let socket = Path::new("/run/agent/api.sock");
        for owner in [0, 7, 8] {
            assert_eq!(check_socket(socket, owner, &[0, 7, 8]), Ok(()), "{owner}");
        }
        let refused = check_socket(socket, 9, &[0, 7, 8]).expect_err("refused");
        assert!(refused.contains("api.sock: belongs to user 9"), "{refused}");
        assert!(refused.contains("wanted root, user 7 or the folder's owner 8"), "{refused}");
    }

    #[test]
    fn a_place_is_judged_as_a_whole_and_behind_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let [safe, open] = ["safe", "open"].map(|name| folder.path().join(name));
        for (path, mode) in [(&safe, 0o755), (&open, 0o775)] {
            fs::create_dir(path).expect("made");
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
        }
        let (socket, exposed, linked) = (safe.join("api.sock"), open.join("api.sock"), safe.join("linked.sock"));
        let refused = check_place(&socket).expect_err("it is not there");
        assert!(refused.contains("No such file"), "{refused}");
        let _serving = [&socket, &exposed].map(|path| UnixListener::bind(path).expect("bound"));
        symlink(&exposed, &linked).expect("linked");
        assert_eq!(check_place(&socket), Ok(()));
        for path in [&exposed, &linked] {
            let refused = check_place(path).expect_err("refused");
            assert!(refused.contains("/open: others on this machine"), "{refused}");
        }
        // Who may give files away sees what a stranger's are.
        if std::os::unix::fs::chown(&socket, Some(4_711), None).is_ok() {
            let refused = check_place(&socket).expect_err("refused");
            assert!(refused.contains("api.sock: belongs to user 4711"), "{refused}");
            std::os::unix::fs::chown(&socket, Some(0), None).expect("back");
            std::os::unix::fs::chown(&safe, Some(4_711), None).expect("given away");
            assert!(check_place(&socket).expect_err("refused").contains("/safe: belongs to user 4711"));
        }
    }
}
