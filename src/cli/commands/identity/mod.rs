//! `identity`: a site's authority in a folder, for plants without SPIRE. It needs no node and no network.

mod accept;
mod authority;
mod bundle;
mod certificate;
mod disk;
mod join;
mod ledger;
mod list;
mod renew;
mod request;
mod rotate;

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::cli::args::{BanArgs, Identity, MappingArg, NamingArgs, Rotate, SubjectArgs};
use crate::cli::commands::identity::authority::{Authority, Issued, anchors_file, pem};
use crate::cli::commands::identity::certificate::Names;
use crate::cli::commands::identity::disk::PUBLIC;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::domain::id::RuntimeId;
use crate::domain::identity::join::JoinToken;
use crate::domain::identity::{Ban, Mapping, Naming, Subject, SubjectName, words};
use crate::domain::time::{Millis, Wall};
use crate::node::acceptance::file_of;
use crate::node::clock::Clock;

/// How long a node's certificate holds if nobody says otherwise: renewed once a month by hand, or daily by a script.
const NODE_LIFE: Millis = Millis::from_hours(30 * 24);
/// How long an actor's certificate holds if nobody says otherwise: a shift and a half.
const ACTOR_LIFE: Millis = Millis::from_hours(12);
/// Longest remark beside a ban, in characters: a line that people can read.
const REASON_CHARS_MAX: usize = 200;

/// Does one of the steps.
pub fn run(command: &Identity) -> Result<(), Failure> {
    let now = Clock::start().now().wall;
    match command {
        Identity::InitSite { ca, site, naming, years } => {
            init_site(&Authority::init(&ca.ca, site, naming_of(naming)?, *years, now)?, ca.json)
        }
        Identity::Issue { ca, subject, days, minutes, out } => {
            let authority = Authority::open(&ca.ca)?;
            let who = subject_of(subject, |text| {
                RuntimeId::parse_in(text, &authority.site).map_err(|error| error.to_string())
            })?;
            issue(&authority, &who, &Names::new(&subject.dns, &subject.ip)?, life(&who, *days, *minutes), out, now)
                .and_then(|(issued, files)| say_issued(ca.json, &authority, &issued, &files))
        }
        Identity::Enrol { subject, naming, out, join_token, json } => {
            enrol(subject, naming, out, join_token.as_deref(), *json)
        }
        Identity::JoinToken(command) => join::run(command, now),
        Identity::Redeem { ca, request, days, minutes, out } => {
            let authority = Authority::open(&ca.ca)?;
            let folder = out.clone().or_else(|| request.parent().map(Path::to_owned)).unwrap_or_default();
            let asked = request::read(request, &authority.naming)?;
            let life = life(&asked.subject, *days, *minutes);
            join::redeem(&authority, request, &asked, life, (&folder, ca.json), now)
        }
        Identity::Accept { out, site, join_token, anchors, json } => {
            let site = site.parse();
            let site = site.map_err(|error| Failure::new(Exit::Usage, format!("--site: {error}")))?;
            let token = join_token.as_deref().map(accept::Witness::Token);
            accept::accept(out, &site, token.or(anchors.as_deref().map(accept::Witness::Words)), *json)
        }
        Identity::Approve { ca, request, fingerprint, days, minutes, out } => {
            let authority = Authority::open(&ca.ca)?;
            let folder = out.clone().or_else(|| request.parent().map(Path::to_owned)).unwrap_or_default();
            let asked = request::read(request, &authority.naming)?;
            compare(&asked, fingerprint.as_deref())?;
            let life = life(&asked.subject, *days, *minutes);
            let (issued, files) = approve(&authority, &asked, life, &folder, now)?;
            say_issued(ca.json, &authority, &issued, &files)
        }
        Identity::Renew { ca, certificate } => renew::run(ca, certificate, now),
        Identity::Rotate(step) => rotate(step, now),
        Identity::Ban { ca, what, reason } => ban(&Authority::open(&ca.ca)?, what, reason, ca.json),
        Identity::ExportBundle { ca, out, days, refresh_hint_s } => {
            bundle::export(&Authority::open(&ca.ca)?, out.as_deref(), *days, *refresh_hint_s, ca.json, now)
        }
        Identity::ImportBundle { file, site, project, fingerprint, json } => {
            bundle::import(file, site, project, fingerprint.as_deref(), *json, now)
        }
        Identity::List { ca } => list::run(&Authority::open(&ca.ca)?, ca.json, now),
    }
}

fn init_site(authority: &Authority, as_json: bool) -> Result<(), Failure> {
    let signer = authority.signer(authority.state.active)?;
    let (site, folder, anchors) = (&authority.site, authority.folder.display(), authority.anchors_path());
    say(
        as_json,
        &json!({ "site": site.as_str(), "anchors": anchors, "certificate": signer.certificate.to_string() }),
        &[
            format!("authority    of site {site}, in {folder}"),
            format!("anchors      {}: bring it to every node", anchors.display()),
            format!("fingerprint  {}", words::spoken(&signer.certificate)),
            format!("next         keep {folder} offline and with your backups"),
        ],
    )
}

/// Issues what a request asks for, for a key that the authority never sees.
fn approve(
    authority: &Authority,
    asked: &request::Request,
    life: Millis,
    out: &Path,
    now: Wall,
) -> Result<(Issued, Vec<PathBuf>), Failure> {
    is_own(authority, &asked.subject)?;
    let issued = authority.issue(&asked.subject, &asked.names, &asked.key, life, now)?;
    let files = hand_out(authority, &asked.subject, &issued, out)?;
    Ok((issued, files))
}

/// Makes a key at the authority and issues a certificate for it.
fn issue(
    authority: &Authority,
    subject: &Subject,
    names: &Names,
    life: Millis,
    out: &Path,
    now: Wall,
) -> Result<(Issued, Vec<PathBuf>), Failure> {
    is_own(authority, subject)?;
    let key_path = out.join(request::file_name(subject, "key"));
    if key_path.exists() {
        let message = format!(
            "{}: there is a key already: renew its certificate with `identity enrol` and `identity approve`",
            key_path.display()
        );
        return Err(Failure::new(Exit::Conflict, message));
    }
    disk::make_folder(out)?;
    // The key stays in memory until its certificate is there, so that a refusal leaves nothing behind.
    let key = rcgen::KeyPair::generate().map_err(certificate::cannot)?;
    let issued = authority.issue(subject, names, &key, life, now)?;
    // Of a key that was here before: for this one nobody has to say whose answer it takes.
    disk::remove(&file_of(&key_path))?;
    disk::write(&key_path, key.serialize_pem().as_bytes(), disk::SECRET)?;
    let mut files = vec![key_path];
    files.extend(hand_out(authority, subject, &issued, out)?);
    Ok((issued, files))
}

/// Puts the certificate and the site's anchors where the node is set up from.
fn hand_out(authority: &Authority, subject: &Subject, issued: &Issued, out: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !out.as_os_str().is_empty() {
        disk::make_folder(out)?;
    }
    let certificate = out.join(request::file_name(subject, "pem"));
    let anchors = out.join(anchors_file(&authority.site));
    disk::write(&certificate, pem(&issued.der).as_bytes(), PUBLIC)?;
    disk::write(&anchors, authority.bundle()?.as_bytes(), PUBLIC)?;
    Ok(vec![certificate, anchors])
}

fn enrol(
    subject: &SubjectArgs,
    naming: &NamingArgs,
    out: &Path,
    join_token: Option<&Path>,
    as_json: bool,
) -> Result<(), Failure> {
    let who = subject_of(subject, |text| match text.split_once('/') {
        Some(_) => text.parse::<RuntimeId>().map_err(|error| error.to_string()),
        None => {
            Err("wanted <site>/<name>: a node does not know of which site it is before it has a certificate".to_owned())
        }
    })?;
    let token = join_token.map(join::read_token).transpose()?;
    let pin = token.as_ref().map(JoinToken::pin);
    let made = request::enrol(out, &naming_of(naming)?, &who, &Names::new(&subject.dns, &subject.ip)?, pin)?;
    let spoken = words::spoken(&made.fingerprint);
    if let Some(token) = &token {
        let proof = join::bind(token, &made.request_path)?;
        output::note(&format!("proof        {}: bring it along with the request", proof.display()));
        output::note(&format!("authority    {}", words::spoken(&token.pin())));
    }
    if let Some(path) = made.expects.as_ref().filter(|_| token.is_none()) {
        output::note(&format!(
            "expects      {}: the node starts once `identity accept` has noted whose answer",
            path.display()
        ));
    }
    let key = if made.is_new_key { "made, and never leaves this machine" } else { "kept as it is" };
    say(
        as_json,
        &json!({
            "id": made.id.to_string(),
            "key": made.key_path,
            "is_new_key": made.is_new_key,
            "expects": made.expects,
            "request": made.request_path,
            "fingerprint": made.fingerprint.to_string(),
            "words": spoken,
        }),
        &[
            format!("id           {}", made.id),
            format!("key          {} ({key})", made.key_path.display()),
            format!("request      {}: bring it to the authority", made.request_path.display()),
            format!("words        {spoken}"),
            "next         read the words to whoever runs `identity approve`".to_owned(),
        ],
    )
}

/// Nothing is issued for a request whose fingerprint nobody has compared.
fn compare(asked: &request::Request, said: Option<&str>) -> Result<(), Failure> {
    let spoken = words::spoken(&asked.fingerprint);
    output::note(&format!("request      {} for {}", asked.id, asked.subject));
    let addresses = asked.names.ip.iter().map(ToString::to_string);
    let names: Vec<String> = asked.names.dns.iter().cloned().chain(addresses).collect();
    if !names.is_empty() {
        output::note(&format!("names        {}", names.join(", ")));
    }
    output::note(&format!("words        {spoken}"));
    match said {
        None => {
            let message =
                "nothing is issued yet: compare the words with those that the node shows, then say --fingerprint";
            Err(Failure::new(Exit::Usage, message))
        }
        Some(said) if words::is_spoken(&asked.fingerprint, said) => Ok(()),
        Some(_) => {
            let message = "the fingerprint is another one: the request may have been exchanged on its way; enrol again";
            Err(Failure::new(Exit::Denied, message))
        }
    }
}

fn rotate(step: &Rotate, now: Wall) -> Result<(), Failure> {
    let (ca, word, next) = match step {
        Rotate::Prepare(ca) => (ca, "prepared", "bring the anchors to every node, then `identity rotate activate`"),
        Rotate::Activate(ca) => (ca, "active", "renew every certificate, then `identity rotate retire`"),
        Rotate::Retire { ca, force: _ } => (ca, "retired", "bring the anchors to every node"),
    };
    let mut authority = Authority::open(&ca.ca)?;
    let number = match step {
        Rotate::Prepare(_) => rotate::prepare(&mut authority, now)?,
        Rotate::Activate(_) => rotate::activate(&mut authority)?,
        Rotate::Retire { ca: _, force } => rotate::retire(&mut authority, *force, now)?,
    };
    let (anchors, spoken) = (authority.anchors_path(), words::spoken(&authority.anchors_print()?));
    let named = authority.state.anchors();
    say(
        ca.json,
        &json!({ "key": number, "state": word, "anchors": anchors, "named": named, "anchors_words": spoken }),
        &[
            format!("key {number} is {word}"),
            format!("anchors      {}", anchors.display()),
            format!("words        {spoken}"),
            format!("next         {next}"),
        ],
    )
}

fn ban(authority: &Authority, what: &BanArgs, reason: &str, as_json: bool) -> Result<(), Failure> {
    let parse = |kind: &str, text: &str| {
        let ban = format!("{kind} {text}").parse::<Ban>();
        ban.map_err(|error| Failure::new(Exit::Usage, format!("--{kind} {text:?}: {error}")))
    };
    let ban = match (&what.certificate, &what.key, &what.id) {
        (Some(hex), _, _) => parse("certificate", hex)?,
        (None, Some(hex), _) => parse("key", hex)?,
        (None, None, id) => parse("id", id.as_deref().unwrap_or_default())?,
    };
    if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(Failure::new(Exit::Usage, format!("--reason: wanted one line of {REASON_CHARS_MAX} characters")));
    }
    let path = authority.bans_path();
    let is_new = !authority.bans()?.has(&ban);
    if is_new {
        let remark = if reason.is_empty() { String::new() } else { format!(" # {reason}") };
        let text = disk::read(&path)?;
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let text = format!("{text}{gap}{ban}{remark}\n");
        // Held against what nodes take before it is handed to them.
        let read = text.parse::<crate::domain::identity::Bans>();
        read.map_err(|fault| Failure::new(Exit::Conflict, format!("{}: {fault}", path.display())))?;
        disk::write(&path, text.as_bytes(), PUBLIC)?;
    }
    let state = if is_new { "banned" } else { "banned already" };
    say(
        as_json,
        &json!({ "ban": ban.to_string(), "is_new": is_new, "bans": path }),
        &[format!("{state}: {ban}"), format!("next         bring {} to every node", path.display())],
    )
}

/// Files as a node's settings name them.
fn say_issued(as_json: bool, authority: &Authority, issued: &Issued, files: &[PathBuf]) -> Result<(), Failure> {
    let anchors = words::spoken(&authority.anchors_print()?);
    let until = list::shown(issued.svid.not_after)?;
    let mut lines = vec![
        format!("id           {}", issued.svid.id),
        format!("serial       {}", issued.serial),
        format!("until        {until}"),
        format!("certificate  {}", issued.svid.certificate),
    ];
    lines.extend(files.iter().map(|file| format!("file         {}", file.display())));
    lines.push(format!("anchors      {anchors}"));
    let body = json!({
        "id": issued.svid.id.to_string(),
        "serial": issued.serial,
        "not_after": until,
        "certificate": issued.svid.certificate.to_string(),
        "key": issued.svid.key.to_string(),
        "files": files,
        "anchors_words": anchors,
    });
    say(as_json, &body, &lines)
}

fn say(as_json: bool, body: &Json, lines: &[String]) -> Result<(), Failure> {
    if as_json { output::json(body) } else { lines.iter().try_for_each(|line| output::line(line)) }
}

fn naming_of(naming: &NamingArgs) -> Result<Naming, Failure> {
    let trust_domain = naming.trust_domain.parse();
    let trust_domain = trust_domain
        .map_err(|error| Failure::new(Exit::Usage, format!("--trust-domain {:?}: {error}", naming.trust_domain)))?;
    let mapping = match naming.mapping {
        MappingArg::PathSite => Mapping::PathSite,
        MappingArg::DomainSite => Mapping::DomainSite,
    };
    Ok(Naming { trust_domain, mapping })
}

/// Whom the options name, read as names are read here: at an authority a bare one is of its own site.
fn subject_of(options: &SubjectArgs, read: impl Fn(&str) -> Result<RuntimeId, String>) -> Result<Subject, Failure> {
    let (option, text) = match (&options.node, &options.actor) {
        (Some(text), _) => ("--node", text.as_str()),
        (None, text) => ("--actor", text.as_deref().unwrap_or_default()),
    };
    let RuntimeId { site, name } =
        read(text).map_err(|error| Failure::new(Exit::Usage, format!("{option} {text:?}: {error}")))?;
    let name = if options.node.is_some() { SubjectName::Runtime(name) } else { SubjectName::Actor(name) };
    Ok(Subject { site, name })
}

fn is_own(authority: &Authority, subject: &Subject) -> Result<(), Failure> {
    if subject.site == authority.site {
        return Ok(());
    }
    let message = format!("this is the authority of site {}, and no other's: {subject} is refused", authority.site);
    Err(Failure::new(Exit::Denied, message))
}

fn life(subject: &Subject, days: Option<u32>, minutes: Option<u32>) -> Millis {
    match (days, minutes, &subject.name) {
        (Some(days), _, _) => Millis::from_hours(u64::from(days).saturating_mul(24)),
        (None, Some(minutes), _) => Millis::from_secs(u64::from(minutes).saturating_mul(60)),
        (None, None, SubjectName::Runtime(_)) => NODE_LIFE,
        (None, None, SubjectName::Actor(_)) => ACTOR_LIFE,
    }
}
