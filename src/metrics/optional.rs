//! A number that may be unknown: nothing is shown then, because a zero would be believed.

use std::fmt::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

/// A gauge or a counter that is looked at when somebody asks. Copies share the number.
#[derive(Debug, Clone)]
pub(super) struct Optional {
    kind: OptionalKind,
    value: Arc<Mutex<Option<f64>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OptionalKind {
    Counter,
    Gauge,
}

impl Optional {
    pub(super) fn counter() -> Self {
        Self { kind: OptionalKind::Counter, value: Arc::default() }
    }

    pub(super) fn gauge() -> Self {
        Self { kind: OptionalKind::Gauge, value: Arc::default() }
    }

    /// A counter is not set back by somebody who has looked earlier and comes later.
    pub(super) fn set(&self, value: Option<f64>) {
        let mut held = self.lock();
        let floor = held.filter(|_| self.kind == OptionalKind::Counter);
        *held = value.map(|value| floor.map_or(value, |floor| value.max(floor)));
    }

    fn lock(&self) -> MutexGuard<'_, Option<f64>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Optional {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        // Between the question whether there is a number and this one it may have gone.
        let Some(value) = *self.lock() else { return Ok(()) };
        match self.kind {
            OptionalKind::Counter => encoder.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>),
            OptionalKind::Gauge => encoder.encode_gauge(&value),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            OptionalKind::Counter => MetricType::Counter,
            OptionalKind::Gauge => MetricType::Gauge,
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_does_not_fall_and_a_gauge_does() {
        for (number, wanted) in [(Optional::counter(), 3.0), (Optional::gauge(), 2.0)] {
            assert!(number.is_empty());
            number.set(Some(3.0));
            number.set(Some(2.0));
            assert_eq!(*number.lock(), Some(wanted));
            number.set(None);
            assert!(number.is_empty());
        }
    }
}
