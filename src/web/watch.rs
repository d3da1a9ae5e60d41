//! What those share who follow the state: one task finds out what has changed, and writes it once for all of them.
//!
//! The changes are a log like that of a run, and are read in the same way (`store::runs::hub`). It is kept in memory and is
//! short: who asks for what it has no more, or comes from before a restart, begins anew with a snapshot.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, stream};

use super::error::Problem;
use super::places::Place;
use super::router::Shared;
use super::standing::{Standing, Waited};
use crate::domain::preflight::Asker;
use crate::domain::workload;
use crate::engine::view::View;
use crate::store::runs::Head;
use crate::store::runs::hub::{Hub, Log, Next, Reader};
use crate::store::{Error, Pending};
use crate::wire::api::v1::state::Snapshot;
use crate::wire::api::v1::watch::Fragments;
use crate::wire::run::{Form, number};

/// How soon a change is seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Most changes that are kept for readers who come back.
const CHANGES_MAX: usize = 4_096;

/// Most bytes of them.
const CHANGES_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Most bytes that a reader is given at once.
const PIECE_BYTES_MAX: usize = 32 * 1_024;

/// One change, as it is sent.
#[derive(Debug, Clone)]
enum Entry {
    /// In each form.
    Change(Arc<[Bytes; 2]>),
    /// It is kept no more.
    Dropped,
}

/// The changes that are kept.
#[derive(Debug, Default)]
struct Kept {
    first: u64,
    bytes: usize,
    entries: VecDeque<Entry>,
}

impl Kept {
    fn count(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    fn push(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(Changes::bytes(&entry));
        self.entries.push_back(entry);
        while (CHANGES_MAX < self.entries.len() || CHANGES_BYTES_MAX < self.bytes)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(Changes::bytes(&oldest));
            self.first = self.first.saturating_add(1);
        }
    }
}

/// The log of changes.
#[derive(Debug, Clone, Default)]
struct Changes(Arc<Mutex<Kept>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for Changes {
    type Entry = Entry;

    fn head(&self) -> Pending<'_, Result<Option<Head>, Error>> {
        let count = lock(&self.0).count();
        Box::pin(async move { Ok(Some(Head { count, is_ended: false })) })
    }

    fn page(&self, from: u64, limit: usize, _bytes_max: usize) -> Pending<'_, Result<Option<Vec<Entry>>, Error>> {
        let kept = lock(&self.0);
        let entries = match from.checked_sub(kept.first) {
            // One is enough to say that more is missing.
            None => vec![Entry::Dropped],
            Some(skipped) => {
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
                kept.entries.iter().skip(skipped).take(limit).cloned().collect()
            }
        };
        Box::pin(async move { Ok(Some(entries)) })
    }

    fn bytes(entry: &Entry) -> usize {
        match entry {
            Entry::Change(forms) => forms.iter().map(Bytes::len).sum(),
            Entry::Dropped => 0,
        }
    }
}

/// The state as it was looked at last.
#[derive(Debug)]
struct Looked {
    view: Arc<View>,
    workload: Option<workload::Status>,
    fragments: Fragments,
    /// The whole of it, once somebody has wanted it.
    snapshot: Option<Arc<Snapshot>>,
}

/// Who follows, and whether somebody looks for them.
#[derive(Debug, Default)]
struct Attendance {
    readers: usize,
    is_looking: bool,
}

/// What all who follow the state share.
#[derive(Debug)]
pub(crate) struct StateFeed {
    looked: Mutex<Option<Looked>>,
    changes: Changes,
    hub: Arc<Hub<Changes>>,
    attendance: Mutex<Attendance>,
}

impl Default for StateFeed {
    fn default() -> Self {
        let changes = Changes::default();
        let hub = Arc::new(Hub::new(changes.clone()));
        Self { looked: Mutex::default(), changes, hub, attendance: Mutex::default() }
    }
}

impl StateFeed {
    /// Finds out what has changed since it was looked last.
    fn look(&self, shared: &Shared) -> MutexGuard<'_, Option<Looked>> {
        let (view, workload, now) = (shared.node.view(), shared.node.workload(), shared.node.now());
        let mut looked = lock(&self.looked);
        let is_current = looked.as_ref().is_some_and(|it| {
            view.generation <= it.view.generation
                && it.workload == workload
                && it.fragments.good_until.is_none_or(|until| now.monotonic < until)
        });
        if is_current {
            return looked;
        }
        let fragments = Fragments::take(&view, workload.as_ref(), now);
        if let Some(before) = looked.as_ref() {
            self.publish(view.boot, &fragments, &before.fragments);
        }
        *looked = Some(Looked { view, workload, fragments, snapshot: None });
        looked
    }

    fn publish(&self, boot: u64, now: &Fragments, before: &Fragments) {
        let changes = now.since(before);
        let (first, entries) = {
            let mut kept = lock(&self.changes.0);
            let first = kept.count();
            let entries: Vec<Entry> = (first.saturating_add(1)..)
                .zip(changes)
                .map(|(number, change)| {
                    let id = format!("{boot}.{number}");
                    let forms =
                        [Form::EventStream, Form::Lines].map(|form| framed(form, change.name, &id, &change.data));
                    Entry::Change(Arc::new(forms))
                })
                .collect();
            entries.iter().for_each(|entry| kept.push(entry.clone()));
            (first, entries)
        };
        if !entries.is_empty() {
            self.hub.publish(first, &entries, false);
        }
    }

    /// Counts a reader in, and sees to it that somebody looks.
    fn attend(shared: &Arc<Shared>) -> Reading {
        let feed = Arc::clone(&shared.feed);
        let mut attendance = lock(&feed.attendance);
        attendance.readers = attendance.readers.saturating_add(1);
        if !std::mem::replace(&mut attendance.is_looking, true) {
            shared.tasks.spawn(look_until_alone(Arc::clone(shared)));
        }
        drop(attendance);
        Reading(feed)
    }

    /// Whether there is nobody to look for; then nobody does.
    fn is_alone(&self) -> bool {
        let mut attendance = lock(&self.attendance);
        attendance.is_looking = 0 < attendance.readers;
        !attendance.is_looking
    }
}

async fn look_until_alone(shared: Arc<Shared>) {
    while !shared.feed.is_alone() {
        drop(shared.feed.look(&shared));
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn framed(form: Form, name: &str, id: &str, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len().saturating_add(64));
    form.named_frame(name, Some(id), data, &mut out);
    out.into()
}

/// One who is counted among the readers.
#[derive(Debug)]
struct Reading(Arc<StateFeed>);

impl Drop for Reading {
    fn drop(&mut self) {
        let mut attendance = lock(&self.0.attendance);
        attendance.readers = attendance.readers.saturating_sub(1);
    }
}

/// One who follows the state.
#[derive(Debug)]
pub(crate) struct Watching {
    shared: Arc<Shared>,
    asker: Asker,
    standing: Standing,
    form: Form,
    is_over: bool,
    /// The id that the reader has seen last; taken when it has been answered for.
    last: Option<String>,
    reader: Option<Reader<Changes>>,
    _reading: Reading,
    _place: Place,
}

impl Watching {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (asker, standing): (Asker, Standing),
        form: Form,
        last: Option<&str>,
        place: Place,
    ) -> Self {
        let reading = StateFeed::attend(&shared);
        let last = last.map(str::to_owned);
        Self { shared, asker, standing, form, is_over: false, last, reader: None, _reading: reading, _place: place }
    }

    pub(crate) fn pieces(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        stream::unfold(self, |mut it| async move { Some((Ok(it.piece().await?), it)) })
    }

    async fn piece(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let Some(reader) = self.reader.as_mut() else {
                match self.begin() {
                    Some(snapshot) => return Some(snapshot),
                    None => continue,
                }
            };
            match self.standing.wait(reader.next_page(PIECE_BYTES_MAX)).await {
                Waited::Came(Ok(Next::Page(entries))) => match joined(self.form, &entries) {
                    Some(piece) => return Some(piece),
                    // Too slow for what is kept.
                    None => self.reader = None,
                },
                Waited::Silent => return Some(Bytes::from_static(self.form.heartbeat())),
                Waited::Again => {}
                Waited::Lapsed(problem) => return Some(self.fail(&problem)),
                Waited::Came(Ok(Next::End | Next::Gone) | Err(_)) | Waited::Stopped => return None,
            }
        }
        None
    }

    /// Tells the reader what is wrong, as the last thing and in the form of the runs API. It has no id: who comes back goes on
    /// where it was.
    fn fail(&mut self, problem: &Problem) -> Bytes {
        self.is_over = true;
        let mut out = Vec::new();
        self.form.named_frame("error", None, &problem.envelope(self.shared.options.is_debug), &mut out);
        out.into()
    }

    /// Goes on behind the id that the reader knows, or begins anew with a snapshot.
    fn begin(&mut self) -> Option<Bytes> {
        let feed = Arc::clone(&self.shared.feed);
        let mut looked = feed.look(&self.shared);
        let looked = looked.as_mut()?;
        let (first, count) = {
            let kept = lock(&feed.changes.0);
            (kept.first, kept.count())
        };
        let boot = looked.view.boot;
        let known = self.last.take().and_then(|id| place_of(&id, boot)).filter(|next| (first..=count).contains(next));
        let next = known.unwrap_or(count);
        self.reader = Some(Reader::new(Arc::clone(&feed.hub), next.checked_sub(1)));
        if known.is_some() {
            return None;
        }
        let now = self.shared.node.now();
        let snapshot = Arc::clone(
            looked.snapshot.get_or_insert_with(|| Arc::new(Snapshot::take(&looked.view, looked.workload.clone(), now))),
        );
        let data = snapshot.answer(&self.asker.actor.to_string(), self.asker.role, now.wall);
        Some(framed(self.form, "snapshot", &format!("{boot}.{count}"), &data))
    }
}

/// The number of the change behind an id of this boot.
fn place_of(id: &str, boot: u64) -> Option<u64> {
    let (of, place) = id.split_once('.')?;
    (number(of)? == boot).then(|| number(place))?
}

/// Changes one behind the other. None if some are missing.
fn joined(form: Form, entries: &[Entry]) -> Option<Bytes> {
    let mut out = Vec::new();
    for entry in entries {
        match entry {
            Entry::Dropped => return None,
            Entry::Change(forms) => {
                let [events, lines] = &**forms;
                out.extend_from_slice(match form {
                    Form::EventStream => events,
                    Form::Lines => lines,
                });
            }
        }
    }
    Some(out.into())
}
