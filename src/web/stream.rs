//! A run's events as the body of an answer, written as its reader takes them.
//!
//! There is no queue: the connection asks for the next piece when it has room. A piece is a page of the log as it is written,
//! once for all readers. So a slow reader holds what its connection has taken, and shares it with all who stand there.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Response};
use futures_util::stream;

use super::envelope::RunFault;
use super::error::Problem;
use super::places::Place;
use super::router::{Call, Shared};
use super::standing::{Standing, Waited};
use crate::domain::run::{Event, Kind};
use crate::domain::stretch::Stretch;
use crate::handle::runs::{Absent, Follower, Next};
use crate::wire::run::{Form, number};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Most bytes of events that are written ahead of a reader, but for one event that is longer by itself. A page of an own run
/// is no longer.
const PIECE_BYTES_MAX: usize = 32 * 1_024;

/// Marks an answer that lasts as long as its reader reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting;

/// A place among those who follow something.
pub(crate) fn place(shared: &Shared, call: &Call) -> Result<Place, Problem> {
    shared.places.take(call.caller()?.holder())
}

/// The form of a stream that a caller asks for, if it asks for one.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Form> {
    let names = |form: Form| {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut types = values.flat_map(|value| value.split(',')).filter_map(|it| it.split(';').next());
        types.any(|it| it.trim().eq_ignore_ascii_case(form.media_type()))
    };
    [Form::EventStream, Form::Lines].into_iter().find(|form| names(*form))
}

/// The event that a reader has seen last, if it says so in digits alone; anything else is no word of it (contract, RR-48).
pub(crate) fn last_seen(headers: &HeaderMap) -> Option<u64> {
    number(headers.get(LAST_EVENT_ID)?.to_str().ok()?)
}

/// Follows a run from behind an event on.
#[derive(Debug)]
pub(crate) struct RunStream {
    follower: Box<dyn Follower>,
    form: Form,
    /// Those that were given and are not written yet.
    events: Stretch<Event>,
    /// The number behind the last event that was sent.
    next: u64,
    is_over: bool,
    is_debug: bool,
    standing: Standing,
    _place: Place,
}

impl RunStream {
    pub(crate) fn new(
        (shared, standing): (&Shared, Standing),
        form: Form,
        after: Option<u64>,
        follower: Box<dyn Follower>,
        place: Place,
    ) -> Self {
        Self {
            follower,
            form,
            events: Stretch::from(Vec::new()),
            next: after.map_or(0, |after| after.saturating_add(1)),
            is_over: false,
            is_debug: shared.options.is_debug,
            standing,
            _place: place,
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let form = self.form;
        let pieces = stream::unfold(self, |mut it| async move { Some((Ok::<_, Infallible>(it.piece().await?), it)) });
        lasting(form, Body::from_stream(pieces))
    }

    /// What is to be sent next; `None` at the end.
    async fn piece(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.encode() {
                return Some(piece);
            }
            if self.is_over {
                return None;
            }
            match self.standing.wait(self.follower.next()).await {
                Waited::Came(Ok(Next::Events(events))) => self.events = events,
                Waited::Came(Ok(Next::End)) => self.is_over = true,
                Waited::Came(Ok(Next::Gone)) => return Some(self.fail(trimmed())),
                // In words that are for every reader.
                Waited::Came(Err(held @ Absent::HeldUp)) => return Some(self.say(&held.into())),
                Waited::Came(Err(absent)) => return Some(self.fail(absent.into())),
                Waited::Silent => return Some(Bytes::from_static(self.form.heartbeat())),
                Waited::Again => {}
                Waited::Lapsed(problem) => return Some(self.fail(problem)),
                Waited::Stopped => return None,
            }
        }
    }

    /// Some of the events at hand. One that was sent already is left out, but if it ends the run it ends the stream.
    fn encode(&mut self) -> Option<Bytes> {
        while !self.events.is_empty() {
            let count = fitting(&self.events);
            let events = self.events.take(count);
            self.is_over |= events.iter().any(|event| event.kind == Kind::RunEnd);
            let Some(events) = unseen(events, self.next) else { continue };
            self.next = events.last().map_or(self.next, |last| last.index.saturating_add(1));
            let form = self.form;
            return Some(Bytes::from_owner(events.text(form.number(), |events| form.events(events))));
        }
        None
    }

    /// Tells the reader what is wrong, as the last thing.
    fn fail(&mut self, problem: Problem) -> Bytes {
        if problem.is_own_fault() {
            let detail = "the stream broke off; ask again with the id of the last event";
            return self.say(&Problem::of_run(RunFault::Internal, detail));
        }
        self.say(&problem)
    }

    fn say(&mut self, problem: &Problem) -> Bytes {
        self.is_over = true;
        let mut out = Vec::new();
        let id = self.next.checked_sub(1).map(|last| last.to_string());
        self.form.frame("error", id.as_deref(), &problem.envelope(self.is_debug), &mut out);
        out.into()
    }
}

/// How many of them make a piece.
fn fitting(events: &[Event]) -> usize {
    let mut bytes = 0_usize;
    let fits = |event: &&Event| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(event.body.len().max(1));
        is_first || bytes <= PIECE_BYTES_MAX
    };
    events.iter().take_while(fits).count()
}

/// Those from a number on, each once; as they are where nobody repeats anything, which is what all readers share.
fn unseen(events: Stretch<Event>, next: u64) -> Option<Stretch<Event>> {
    let is_new = events.first().is_some_and(|first| next <= first.index);
    if is_new && events.is_sorted_by(|one, other| one.index < other.index) {
        return Some(events);
    }
    let mut next = next;
    let mut left = events.to_vec();
    left.retain(|event| {
        let is_new = next <= event.index;
        next = next.max(event.index.saturating_add(1));
        is_new
    });
    (!left.is_empty()).then(|| left.into())
}

/// What a reader is told whose run was forgotten before it had read all of it.
fn trimmed() -> Problem {
    Problem::of_run(
        RunFault::RunNotFound,
        "the run was forgotten while it was read, and the rest of its history with it",
    )
}

/// An answer that goes on.
pub(crate) fn lasting(form: Form, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A proxy that collects an answer before it passes it on would hold back what is to be seen live.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(Lasting);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Wall;

    fn events(numbers: &[u64]) -> Stretch<Event> {
        let event = |index: &u64| Event { index: *index, kind: Kind::Log, at: Wall(0), body: "{}".into() };
        numbers.iter().map(event).collect::<Vec<_>>().into()
    }

    fn numbers(events: Option<Stretch<Event>>) -> Vec<u64> {
        events.into_iter().flatten().map(|event| event.index).collect()
    }

    #[test]
    fn what_was_sent_is_left_out_and_what_is_new_stays_shared() {
        let fresh = events(&[4, 5, 6]);
        let kept = unseen(fresh.clone(), 4).expect("all of them are new");
        let place = |events: &Stretch<Event>| events.as_ptr();
        assert_eq!((place(&kept), kept.len()), (place(&fresh), 3));
        assert_eq!(numbers(unseen(fresh.clone(), 6)), [6]);
        assert_eq!(numbers(unseen(fresh, 7)), Vec::<u64>::new());
        assert_eq!(numbers(unseen(events(&[4, 5, 4, 5, 6]), 3)), [4, 5, 6]);
        assert_eq!(numbers(unseen(events(&[]), 0)), Vec::<u64>::new());
    }
}
