//! Runs over HTTP: the lines of the contract, and what many readers may do to one node.

mod chunks;
mod contract;
mod counted;
mod cuts;
mod http;
mod lines;
mod many;
mod played;
mod readers;
mod standing;
mod suite;
mod trimmed;
mod walks;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::identity::token::{self, Audience, TokenId, TokenRecord, Tokens};
use trust_runtime::domain::offer::{Agent, Offer};
use trust_runtime::domain::time::Wall;
use trust_runtime::web::{self, App, Auth, Options, Surface};

use crate::fleet::{Bench, bench_with};
use crate::sockets::PATIENCE;

use contract::{AGENTS, Target};
use played::Played;

/// Where the admin routes are.
const MOUNT: &str = "/fleet/admin";

/// A node that listens twice, with played agents.
struct Served {
    bench: Bench,
    played: Arc<Played>,
    target: Target,
    stop: CancellationToken,
}

impl std::ops::Deref for Served {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn offer() -> Offer {
    let agent = |(name, _, webhook): &(&str, &str, bool)| {
        let role = if *name == "slow" { Role::Viewer } else { Role::Operator };
        (name.parse().unwrap(), Agent { role, webhook: *webhook })
    };
    Offer { agents: AGENTS.iter().map(agent).collect(), ..Offer::default() }
}

/// The text of an operator's token for a listener.
fn text_of(audience: Audience) -> String {
    token::compose(TokenId::from_bits(audience as u32), &[7; 32])
}

/// An operator's token for a listener, as it is kept.
fn record_of(audience: Audience) -> TokenRecord {
    TokenRecord {
        id: TokenId::from_bits(audience as u32),
        digest: web::digest(&text_of(audience)),
        role: Role::Operator,
        audience,
        actor: "site-1/*".parse().unwrap(),
        created: Wall(0),
        expires: None,
        note: String::new(),
    }
}

fn tokens(records: Vec<TokenRecord>) -> Tokens {
    Tokens::new(records, &"site-1".parse().unwrap()).unwrap()
}

async fn serve(change: impl FnOnce(&mut Options)) -> Served {
    let mut bench = bench_with(|options| {
        // A busy machine is no slow caller.
        options.limits.head_read = PATIENCE;
        options.limits.body_read = PATIENCE;
        change(options);
    });
    bench.node.change(|view| {
        let mut settings = (*view.settings).clone();
        settings.offer = offer();
        view.settings = Arc::new(settings);
    });
    let records = [Audience::Admin, Audience::Public].map(record_of);
    bench.options.credentials.replace_tokens(tokens(records.into()));
    let played = Played::new();
    bench.runs = Some(played.clone());
    let stop = CancellationToken::new();
    let mut addresses = Vec::new();
    for surface in [Surface::Public, Surface::Admin { mount: MOUNT.to_owned() }] {
        let auth = if surface == Surface::Public { Auth::Local } else { Auth::Token };
        let options = Options { surface, auth, ..bench.options.clone() };
        let bound = web::bind(&options).await.expect("a free port");
        addresses.push(bound.addr().to_string());
        tokio::spawn(bound.serve(web::State { options, ..bench.state() }, stop.clone()));
    }
    let [base, admin] = [0, 1].map(|at: usize| addresses[at].clone());
    let [token, public] = [Audience::Admin, Audience::Public].map(text_of);
    let target = Target { base, admin, mount: MOUNT.to_owned(), token, public };
    Served { bench, played, target, stop }
}

/// A check of their file that takes longer than a start waits for it.
#[tokio::test]
async fn health_says_that_the_file_of_the_runs_is_still_being_checked() {
    let mut bench = bench_with(|_| {});
    let played = Played::new();
    bench.runs = Some(played.clone());
    bench.app = App::new(bench.state(), "127.0.0.1:8080".parse().unwrap());
    let runs = async || {
        let seen = bench.get("/healthz").await;
        ["status", "detail"].map(|field| seen.at(&format!("/subsystems/runs/{field}")))
    };
    assert_eq!(runs().await, ["ok", "are kept"]);
    played.is_being_checked.store(true, Ordering::Relaxed);
    let wanted = "are kept; their file is still being checked after a stop that was not clean";
    assert_eq!(runs().await, ["degraded", wanted]);
}
