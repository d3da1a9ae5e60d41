//! Callers who ask all the time, through any node, and ask again what they got no answer to.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::evidence::{Asked, Attempt, Calls, Told, Wish};
use super::schedule::Node;
use crate::chance::Chance;
use crate::http;
use crate::question::{DISPATCH, command, ping, read, with, write};
use crate::watch::{let_pass, try_until};

/// Callers at once: enough that some are served while others wait for a node that is frozen.
pub(super) const CALLERS: u64 = 6;

/// How long a repetition in the calm may take until it is done.
const REPEATED_MAX: Duration = Duration::from_secs(15);

/// What all callers share.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) is_over: AtomicBool,
    pub(super) calls: Mutex<Calls>,
}

impl Traffic {
    /// One caller, until it is told that it is over.
    pub(super) fn call(&self, webs: &[SocketAddr], caller: u64, mut chance: Chance) {
        let name = format!("storm-{caller}");
        let mut asked: Vec<(String, Asked)> = Vec::new();
        for number in 0_u64.. {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let origin = Node(chance.index(webs.len()));
            if chance.below(100) < 20 {
                let target = Node(chance.index(webs.len()));
                let body = read(origin.name(), &format!("{name}-read-{number}"), &[target.name()]);
                drop(post(webs[origin.0], &with(body, "query_budget_ms", 500)));
            } else {
                let old = chance.below(100) < 30 && !asked.is_empty();
                let (id, it) = if old {
                    asked[chance.index(asked.len())].clone()
                } else {
                    let new = (format!("{name}-{number}"), new((caller, number), webs.len(), &mut chance));
                    self.calls.lock().expect("no panic").requests.insert(new.0.clone(), new.1);
                    asked.push(new.clone());
                    new
                };
                let told = ask(webs, origin, &id, it, chance.between(300, 1_500));
                self.calls.lock().expect("no panic").attempts.push(Attempt { id, origin, told });
            }
            // waits: the pace of a caller.
            let_pass(Duration::from_millis(chance.between(10, 200)));
        }
    }
}

fn new((caller, number): (u64, u64), nodes: usize, chance: &mut Chance) -> Asked {
    let wish = match chance.below(10) {
        0..3 => Wish::Ping,
        // Long enough that no receipt is forgotten, and a value of its own: one that is there already is no change.
        3..6 => Wish::Apply { more: 100 + 1_300 * caller + number % 1_300 },
        _ => Wish::Mark { hold_ms: chance.below(3) * chance.below(1_500) },
    };
    Asked { wish, target: Node(chance.index(nodes)) }
}

fn body(origin: Node, id: &str, asked: Asked) -> Json {
    let (via, target) = (origin.name(), asked.target.name());
    match asked.wish {
        Wish::Ping => ping(via, id, &[target]),
        Wish::Apply { more } => write(via, id, &[target], more),
        Wish::Mark { hold_ms } => {
            let hold = format!("{}.{:03}", hold_ms / 1_000, hold_ms % 1_000);
            command(via, id, target, "mark", &json!({ "id": id, "hold": hold }))
        }
    }
}

fn post(web: SocketAddr, body: &Json) -> Result<http::Answer, String> {
    http::send(web, DISPATCH, None, Some(body))?.answer()
}

fn ask(webs: &[SocketAddr], origin: Node, id: &str, asked: Asked, budget_ms: u64) -> Told {
    let body = with(body(origin, id, asked), "query_budget_ms", budget_ms);
    match post(webs[origin.0], &body) {
        Ok(answer) => told(&answer),
        Err(why) => Told::Unknown(why),
    }
}

/// What an answer says about its one target.
fn told(answer: &http::Answer) -> Told {
    let text = |row: &Json, name: &str| row[name].as_str().map(str::to_owned);
    let row = ["/results/0", "/preflight/decisions/0"].iter().find_map(|place| answer.body.pointer(place));
    let Some(row) = row.filter(|_| answer.status == 200) else {
        return refusal(answer.text_at("/code"), &answer.text);
    };
    match (row["ok"].as_bool(), text(row, "audit_id")) {
        (Some(true), Some(audit_id)) => Told::Done { audit_id, run: text(row, "run_id") },
        _ => refusal(row["denial_code"].as_str().unwrap_or_default(), &answer.text),
    }
}

/// Codes that leave open whether the target has begun; every other one says that it has not.
fn refusal(code: &str, text: &str) -> Told {
    match code {
        "" | "timeout" | "transport_failure" | "interrupted" => Told::Unknown(text.to_owned()),
        code => Told::Refused(code.to_owned()),
    }
}

/// Asks each request once more, through any node, until it is done.
pub(super) fn repeat(webs: &[SocketAddr], calls: &Calls, chance: &mut Chance) -> Vec<Attempt> {
    let mut all = Vec::new();
    for (id, asked) in &calls.requests {
        let origin = Node(chance.index(webs.len()));
        let last = std::cell::RefCell::new(None);
        drop(try_until(REPEATED_MAX, || {
            let told = ask(webs, origin, id, *asked, 1_500);
            let is_done = matches!(told, Told::Done { .. });
            last.replace(Some(told));
            if is_done { Ok(()) } else { Err(String::new()) }
        }));
        let told = last.into_inner().expect("asked at least once");
        all.push(Attempt { id: id.clone(), origin, told });
    }
    all
}
