//! Runs over HTTP: the lines of the contract, and what many readers may do to one node.

mod chunks;
mod counted;
mod http;
mod lines;
mod many;
mod played;
mod suite;
mod trimmed;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::offer::{Agent, Offer};
use trust_runtime::web::{self, Auth, Options, Surface};

use crate::fleet::{Bench, bench_with};
use crate::sockets::PATIENCE;

use played::Played;

/// The agents of the contract's fixture, and one that returns nothing.
const AGENTS: [&str; 7] = ["big", "boom", "hello", "many", "nothing", "offline", "slow"];

/// A node that listens twice, with played agents.
struct Served {
    bench: Bench,
    played: Arc<Played>,
    base: String,
    admin: String,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn offer() -> Offer {
    let agent = |name: &&str| {
        let role = if **name == *"slow" { Role::Viewer } else { Role::Operator };
        (name.parse().unwrap(), Agent { role, webhook: **name != *"offline" })
    };
    Offer { agents: AGENTS.iter().map(agent).collect(), ..Offer::default() }
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
    let played = Played::new();
    bench.runs = Some(played.clone());
    let stop = CancellationToken::new();
    let mut addresses = Vec::new();
    for surface in [Surface::Public, Surface::Admin { mount: "/fleet/admin".to_owned() }] {
        let auth = if surface == Surface::Public { Auth::Local } else { Auth::Token };
        let options = Options { surface, auth, ..bench.options.clone() };
        let bound = web::bind(&options).await.expect("a free port");
        addresses.push(bound.addr().to_string());
        tokio::spawn(bound.serve(web::State { options, ..bench.state() }, stop.clone()));
    }
    let given = |name: &str, own: &String| std::env::var(name).unwrap_or_else(|_| own.clone());
    let (base, admin) = (given("TRUST_RUNS_BASE", &addresses[0]), given("TRUST_RUNS_ADMIN", &addresses[1]));
    Served { bench, played, base, admin, stop }
}
