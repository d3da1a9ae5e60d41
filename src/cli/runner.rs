//! Runs a command's asynchronous work, and leaves its threads behind when it is done.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::cli::exit::{Exit, Failure};

/// How long threads may still be busy when the work is done. A thread that somebody blocks must not keep the process.
const LEAVE_MAX: Duration = Duration::from_millis(50);

/// Runs the work to its end.
///
/// On a worker, and never on this thread: libraries that wait in place (Zenoh does) would park this very thread below the
/// work, and take wake-ups that are meant for the work. Nobody would wake it again. A worker's task keeps its wake-ups itself.
pub(super) fn wait_for(work: impl Future<Output = Result<(), Failure>> + Send + 'static) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("tokio: {error}")))?;
    let ended = runtime.block_on(runtime.spawn(work));
    runtime.shutdown_timeout(LEAVE_MAX);
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(error)) => Err(Failure::new(Exit::Failed, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::thread;

    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    use super::*;

    /// Longer than any of these takes on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Runs the work as a command would be run, on a thread that may be given up.
    fn in_time(work: impl Future<Output = Result<(), Failure>> + Send + 'static) -> Result<(), Failure> {
        let (tx, ended) = mpsc::channel();
        thread::spawn(move || tx.send(wait_for(work)));
        ended.recv_timeout(DEADLINE).expect("the work ends, and so does its runner")
    }

    #[test]
    fn a_wake_up_during_a_wait_in_place_reaches_the_work() {
        let (begun_tx, begun) = mpsc::channel();
        let (outer_tx, outer) = oneshot::channel::<()>();
        let (inner_tx, mut inner) = oneshot::channel::<()>();
        // Once the wait in place has looked for the first time: first what the work waits for beside it, then its own end.
        thread::spawn(move || {
            begun.recv().expect("it begins");
            outer_tx.send(()).expect("waited for");
            inner_tx.send(()).expect("waited for");
        });
        let wait_in_place = async move {
            let looked = poll_fn(move |context| {
                let polled = std::pin::Pin::new(&mut inner).poll(context);
                if polled.is_pending() {
                    begun_tx.send(()).unwrap_or_default();
                }
                polled
            });
            tokio::task::block_in_place(|| Handle::current().block_on(looked)).expect("sent");
        };
        let ended = in_time(async move {
            let (outer, ()) = tokio::join!(biased; outer, wait_in_place);
            outer.map_err(|error| Failure::failed(error.to_string()))
        });
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[test]
    fn a_thread_that_never_ends_does_not_keep_the_process() {
        let (_never, blocked) = mpsc::channel::<()>();
        let ended = in_time(async move {
            let (tx, begun) = oneshot::channel();
            drop(tokio::task::spawn_blocking(move || {
                tx.send(()).expect("waited for");
                blocked.recv()
            }));
            begun.await.map_err(|error| Failure::failed(error.to_string()))
        });
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[test]
    fn what_the_work_says_is_what_the_command_says() {
        assert!(in_time(async { Ok(()) }).is_ok());
        let failure = in_time(async { Err(Failure::new(Exit::Conflict, "taken")) }).expect_err("it failed");
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Conflict, "taken"));
    }

    #[test]
    #[should_panic(expected = "a fault of ours")]
    fn a_panic_stays_a_panic() {
        drop(wait_for(async { std::panic::resume_unwind(Box::new("a fault of ours")) }));
    }
}
