//! What probes say about the link to one peer: p95 latency and loss over a short window.

use std::collections::VecDeque;

use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;

/// Probes in the window: half a minute at one a second, so that a repaired link looks repaired soon.
const WINDOW: usize = 32;

/// Loss in per cent from which a link counts as degraded: one lost probe in the window (3 %) is not yet a pattern.
const DEGRADED_LOSS_PCT: u32 = 5;

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeState {
    /// Loses probes.
    Degraded,
    /// The last probes all failed.
    Failed,
    /// Answers.
    Healthy,
    /// Not measured recently.
    Stale,
}

impl EdgeState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Degraded, Self::Failed, Self::Healthy, Self::Stale];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Healthy => "healthy",
            Self::Stale => "stale",
        }
    }
}

/// One directed link as its source measured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Measured towards.
    pub target: RuntimeId,
    /// How it stands.
    pub state: EdgeState,
    /// 95th percentile of the round trip in microseconds; absent when no probe came back.
    pub latency_p95_us: Option<u64>,
    /// Lost probes in per cent of the window.
    pub loss_pct: u32,
    /// When the last probe came back.
    pub last_ok: Option<Wall>,
}

/// The probes of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Round trips in microseconds, `None` for a lost probe, newest last.
    probes: VecDeque<Option<u64>>,
    last_ok: Option<Wall>,
}

impl Link {
    /// A probe came back after so many microseconds.
    pub fn answered(&mut self, round_trip_us: u64, at: Wall) {
        self.push(Some(round_trip_us));
        self.last_ok = Some(at);
    }

    /// A probe did not come back.
    pub fn lost(&mut self) {
        self.push(None);
    }

    fn push(&mut self, probe: Option<u64>) {
        if self.probes.len() >= WINDOW {
            self.probes.pop_front();
        }
        self.probes.push_back(probe);
    }

    /// The link's measure; `None` before the first probe ended.
    pub fn edge(&self, target: RuntimeId) -> Option<Edge> {
        let newest = self.probes.back()?;
        let mut answered: Vec<u64> = self.probes.iter().flatten().copied().collect();
        answered.sort_unstable();
        let lost = self.probes.len().saturating_sub(answered.len());
        let loss_pct = percent(lost, self.probes.len());
        // Three in a row is what a single stall of the host does not produce.
        let is_failed = self.probes.iter().rev().take(3).all(Option::is_none);
        let state = match newest {
            None if is_failed => EdgeState::Failed,
            _ if DEGRADED_LOSS_PCT <= loss_pct => EdgeState::Degraded,
            _ => EdgeState::Healthy,
        };
        Some(Edge { target, state, latency_p95_us: p95(&answered), loss_pct, last_ok: self.last_ok })
    }
}

fn percent(part: usize, whole: usize) -> u32 {
    let scaled = part.saturating_mul(100).checked_div(whole).unwrap_or(0);
    u32::try_from(scaled).unwrap_or(100)
}

/// Nearest-rank 95th percentile of sorted values.
fn p95(sorted: &[u64]) -> Option<u64> {
    let rank = sorted.len().saturating_mul(95).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(probes: &[Option<u64>]) -> Edge {
        let mut link = Link::default();
        for probe in probes {
            match probe {
                Some(micros) => link.answered(*micros, Wall(1)),
                None => link.lost(),
            }
        }
        link.edge("s/b".parse().expect("legal")).expect("measured")
    }

    #[test]
    fn a_link_without_probes_says_nothing() {
        assert_eq!(Link::default().edge("s/b".parse().expect("legal")), None);
    }

    #[test]
    fn p95_and_loss_are_those_of_the_window() {
        let twenty: Vec<_> = (1..=20).map(Some).collect();
        assert_eq!(measured(&twenty).latency_p95_us, Some(19));
        assert_eq!(measured(&twenty).state, EdgeState::Healthy);
        let lossy = measured(&[Some(5), None, Some(7), Some(6)]);
        assert_eq!((lossy.loss_pct, lossy.state), (25, EdgeState::Degraded));
        assert_eq!(measured(&[Some(5), None, None, None]).state, EdgeState::Failed);
        assert_eq!(measured(&[None]).latency_p95_us, None);
    }

    #[test]
    fn an_old_loss_leaves_the_window() {
        let mut probes = vec![None];
        probes.extend((0..WINDOW).map(|_| Some(3)));
        assert_eq!(measured(&probes).loss_pct, 0);
    }
}
