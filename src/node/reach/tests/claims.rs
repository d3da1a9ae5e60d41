//! Runtimes that say of runs of others that they are their own.

use serde_json::Value as Json;

use super::*;
use crate::domain::id::RuntimeId;

/// A node that copies no pointers by itself, and hears of runs from liars alone.
struct Among {
    b: Member,
    liars: Vec<Liar>,
}

impl Among {
    async fn these(names: &[&str]) -> Self {
        Self::asking(names, patience().asked).await
    }

    /// The same, of which the node asks so many where a run is.
    async fn asking(names: &[&str], asked: usize) -> Self {
        let hub = Hub::new().expect("a hub");
        let pull = Duration::from_secs(3_600);
        let short = Patience { pull, answer: Duration::from_millis(300), asked, ..patience() };
        let b = Member::patient(&hub, "s/b", Kept::knowing(names).await, short).await;
        let mut liars = Vec::new();
        for name in names {
            let liar = Liar::join(&hub, name).await;
            b.sees_liar(&liar, None).await;
            liars.push(liar);
        }
        Self { b, liars }
    }

    async fn read(&self, run: RunId) -> Result<RuntimeId, Absent> {
        in_time(self.b.all.run(engineer(), run)).await.map(|run| run.pointer.owner)
    }

    /// What is on record of claims here.
    fn on_record(&self) -> Vec<String> {
        let reads = self.b.run_reads().into_iter();
        reads.filter(|draft| draft.code == Some(Code::Conflict)).map(|draft| draft.detail).collect()
    }
}

fn run(number: u8) -> RunId {
    pointer(&parsed("s/b"), number).run
}

impl Liar {
    fn claim(&self, run: RunId) -> Pointer {
        Pointer { run, ..pointer(&self.id, 1) }
    }

    /// Says that the run is its own, however it is asked.
    fn claims(&self, run: RunId) {
        let (keys, asked, claim) = (self.keys(), Arc::clone(&self.asked), self.claim(run));
        self.tell(move |_, question| {
            let answer = match asked.lock().expect("whole")["asked"].as_str() {
                Some("pointer") => RunAnswer::Pointer(Box::new(claim.clone())),
                _ => RunAnswer::Record(Box::new(Run { pointer: claim.clone(), result: None, error: None })),
            };
            Some(message::seal_run_answer(&keys, question, &answer))
        });
    }

    fn was_asked(&self) -> bool {
        *self.asked.lock().expect("whole") != Json::Null
    }
}

#[tokio::test]
async fn a_partner_does_not_take_a_run_whose_owner_may_be_of_the_own_site() {
    let among = Among::these(&["s/h", "t/p"]).await;
    let [h, p] = among.liars.as_slice() else { panic!("two") };
    p.claims(run(1));
    assert_eq!(among.read(run(1)).await, Err(Absent::Unanswered), "it may be of the one who is silent");
    h.claims(run(1));
    assert_eq!(among.read(run(1)).await, Ok(h.id.clone()));
    assert!(!p.was_asked(), "it is not even told of the run");
    h.repeat(RunAnswer::Unknown);
    p.claims(run(2));
    assert_eq!(among.read(run(2)).await, Ok(p.id.clone()), "nobody of the own site has it");
    assert_eq!(among.on_record(), [""; 0], "nothing was in question");
}

/// Nothing is shown as known that is not: with more runtimes than are asked, nobody knows that a run is nowhere.
#[tokio::test]
async fn a_run_about_which_not_everybody_was_asked_is_not_called_unknown() {
    for (names, asked, wanted) in [
        (["s/h", "s/l"], 2, Absent::Unknown),
        (["s/h", "s/l"], 1, Absent::Unanswered),
        (["s/h", "t/p"], 1, Absent::Unanswered),
    ] {
        let among = Among::asking(&names, asked).await;
        among.liars.iter().for_each(|it| it.repeat(RunAnswer::Unknown));
        assert_eq!(among.read(run(1)).await, Err(wanted), "{names:?}, of whom {asked} are asked");
    }
}

/// Contract, RR-60: what was forgotten here is unknown, whoever is silent or says that it has it.
#[tokio::test]
async fn an_own_run_that_was_forgotten_is_nobody_elses() {
    let among = Among::these(&["s/h"]).await;
    let [h] = among.liars.as_slice() else { panic!("one") };
    let forgotten = among.b.begin_oldest().await;
    among.b.end(forgotten, 1, "1").await;
    assert_eq!(among.read(forgotten).await, Err(Absent::Unknown), "the one who is silent cannot have it");
    h.claims(forgotten);
    assert_eq!(among.read(forgotten).await, Err(Absent::Unknown));
    assert!(!h.was_asked());
    among.b.is_told(h.claim(forgotten)).await;
    assert_eq!(among.read(forgotten).await, Err(Absent::Unknown), "nor does a copied pointer make it one");
}

#[tokio::test]
async fn of_two_who_claim_a_run_none_is_believed_for_being_faster() {
    let among = Among::these(&["s/h", "s/l", "t/p", "t/q"]).await;
    let [h, l, p, q] = among.liars.as_slice() else { panic!("four") };
    h.claims(run(1));
    l.claims(run(1));
    let contested = Absent::Contested(vec![h.id.clone(), l.id.clone()]);
    assert_eq!(among.read(run(1)).await, Err(contested.clone()));
    assert_eq!(in_time(among.b.all.events(engineer(), page(run(1), None, 9))).await, Err(contested.clone()));
    assert_eq!(in_time(among.b.all.follow(engineer(), run(1), None)).await.map(drop), Err(contested.clone()));
    let detail = format!("{}: the run is claimed by s/h and s/l, of which one has it at most", run(1));
    assert_eq!(among.on_record(), [detail.clone(), detail.clone(), detail]);
    assert_eq!(among.b.refused("run_claimed_twice"), 3);
    among.b.is_told(h.claim(run(1))).await;
    assert_eq!(among.read(run(1)).await, Ok(h.id.clone()), "the copied pointer counts");

    h.repeat(RunAnswer::Unknown);
    l.repeat(RunAnswer::Unknown);
    p.claims(run(2));
    q.claims(run(2));
    assert_eq!(among.read(run(2)).await, Err(Absent::Contested(vec![p.id.clone(), q.id.clone()])));
    assert_eq!(among.on_record().len(), 4);
}

#[tokio::test]
async fn a_claim_that_was_heard_before_does_not_displace_the_pointer_of_the_owner() {
    let among = Among::these(&["s/h", "s/l", "t/p"]).await;
    let [h, l, p] = among.liars.as_slice() else { panic!("three") };
    h.repeat(RunAnswer::Unknown);
    l.repeat(RunAnswer::Unknown);
    p.claims(run(1));
    assert_eq!(among.read(run(1)).await, Ok(p.id.clone()), "nobody else has it yet");
    among.b.is_told(h.claim(run(1))).await;
    h.claims(run(1));
    for _ in 0..2 {
        assert_eq!(among.read(run(1)).await, Ok(h.id.clone()));
    }
    assert_eq!(among.on_record(), [format!("{} is no run of t/p: s/h has it", run(1))], "said once");

    // Of two of the own site either may have lied.
    h.tell(|_, _| None);
    l.claims(run(2));
    assert_eq!(among.read(run(2)).await, Ok(l.id.clone()), "the other one was silent");
    among.b.is_told(h.claim(run(2))).await;
    h.claims(run(2));
    let contested = Err(Absent::Contested(vec![h.id.clone(), l.id.clone()]));
    assert_eq!([among.read(run(2)).await, among.read(run(2)).await], [contested.clone(), contested]);
    assert_eq!(among.on_record().len(), 3);
}

/// Contract, RR-25: what it has said before is no claim beside its own.
#[tokio::test]
async fn an_owner_does_not_contradict_itself() {
    let among = Among::these(&["s/h"]).await;
    let [h] = among.liars.as_slice() else { panic!("one") };
    h.claims(run(1));
    assert_eq!(among.read(run(1)).await, Ok(h.id.clone()));
    let other = Pointer { agent: parsed("other"), ..h.claim(run(1)) };
    among.b.is_told(other.clone()).await;
    let record = Run { pointer: other, result: None, error: None };
    h.repeat(RunAnswer::Record(Box::new(record.clone())));
    assert_eq!(in_time(among.b.all.run(engineer(), run(1))).await, Ok(record), "the copied pointer counts");
    assert_eq!(among.on_record(), [""; 0]);
}

/// What stands in the way of a lie that comes later: the first pointer that was copied.
#[tokio::test]
async fn nobody_is_asked_who_else_has_a_run_whose_pointer_was_copied() {
    let among = Among::these(&["s/h", "s/l", "t/p"]).await;
    let [h, l, p] = among.liars.as_slice() else { panic!("three") };
    among.b.is_told(h.claim(run(1))).await;
    [h, l, p].into_iter().for_each(|liar| liar.claims(run(1)));
    assert_eq!(among.read(run(1)).await, Ok(h.id.clone()));
    assert!(!l.was_asked() && !p.was_asked());
}
