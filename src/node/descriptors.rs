//! Room for as many sockets as the settings allow. Most systems let a process open 1,024 files unless it asks for more, which
//! it may do by itself up to a second limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the connections: stores, links of the mesh, pipes of programs.
const BESIDE: u64 = 512;

/// The fewest connections with which a listener is of use.
const CONNECTIONS_MIN: usize = 16;

/// Asks for room for so many connections on each of so many listeners. Gives how many each of them may have.
pub(super) fn make_room(connections_max: usize, listeners: usize) -> usize {
    let listeners = listeners.max(1);
    let wanted = connections_max.saturating_mul(listeners);
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(BESIDE);
    let limit = raised(getrlimit(Resource::Nofile), wanted);
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::warn!(wanted, "the limit of open files could not be raised");
    }
    let each = fit(getrlimit(Resource::Nofile).current, connections_max, listeners);
    if each < connections_max {
        tracing::warn!(
            connections_max = each,
            "the limit of open files leaves room for fewer connections than runtime.web.connections_max"
        );
    }
    each
}

/// The limit with as much as is wanted, if it may be had. What is there is never lowered.
fn raised(limit: Rlimit, wanted: u64) -> Rlimit {
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Rlimit { current: limit.current.map(|current| current.max(most)), ..limit }
}

/// How many connections each listener may have with so many files.
fn fit(files: Option<u64>, connections_max: usize, listeners: usize) -> usize {
    let Some(files) = files else { return connections_max };
    let room = usize::try_from(files.saturating_sub(BESIDE)).unwrap_or(usize::MAX);
    room.checked_div(listeners).unwrap_or(room).clamp(CONNECTIONS_MIN, connections_max.max(CONNECTIONS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: u64, maximum: Option<u64>) -> Rlimit {
        Rlimit { current: Some(current), maximum }
    }

    #[test]
    fn as_much_is_asked_for_as_may_be_had() {
        assert_eq!(raised(limit(1_024, Some(500_000)), 2_560).current, Some(2_560));
        assert_eq!(raised(limit(1_024, Some(2_000)), 2_560).current, Some(2_000));
        assert_eq!(raised(limit(1_024, None), 2_560).current, Some(2_560));
        assert_eq!(raised(limit(8_192, Some(500_000)), 2_560).current, Some(8_192), "never less");
        assert_eq!(raised(Rlimit { current: None, maximum: None }, 2_560).current, None);
    }

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(fit(Some(2_560), 2_048, 1), 2_048);
        assert_eq!(fit(Some(1_024), 2_048, 1), 512);
        assert_eq!(fit(Some(1_024), 2_048, 2), 256);
        assert_eq!(fit(Some(64), 2_048, 1), CONNECTIONS_MIN);
        assert_eq!(fit(None, 2_048, 2), 2_048);
    }
}
