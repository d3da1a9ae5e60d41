//! Asks partners for their bundles: one loop for each endpoint, as often as the partner wishes within bounds.
//!
//! Every answer is bounded in size and time, no redirect is followed and no proxy is asked. What fails changes nothing: the
//! last good bundle stays until its age stops writes. What is taken is on disk before it counts, and comes into force as any
//! other changed file does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{StatusCode, redirect};
use rustls::ClientConfig;

use crate::domain::id::SiteId;
use crate::domain::identity::bundle::{Bundle, Way, refresh_after};
use crate::domain::time::Millis;
use crate::node::bundles::{self, Bundles};
use crate::node::clock::Clock;
use crate::node::{KeyError, certificates};
use crate::settings::{BundleEndpoint, BundlePartner, EndpointProof, Settings};
use crate::tls;
use crate::wire::bundle::{BUNDLE_BYTES_MAX, Malformed, parse};

#[cfg(test)]
mod tests;

/// How long a whole answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a connection and its handshake may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why no bundle came.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// Nobody, or nobody who is believed.
    #[error("{0}")]
    Call(String),
    /// Another answer than a bundle.
    #[error("wanted the status 200, got {0}; a redirect is not followed")]
    Status(u16),
    /// More than a bundle has.
    #[error("wanted at most {BUNDLE_BYTES_MAX} bytes, got more")]
    TooLong,
    /// Not a bundle.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A bundle that is not taken.
    #[error("{0}")]
    Refused(#[from] bundles::Error),
    /// The caller's own side is not in order.
    #[error("{0}")]
    Own(#[from] KeyError),
    /// The endpoint is to prove its SPIFFE ID, and there is no identity to hold it against.
    #[error("wanted runtime.identity.source \"files\", because https_spiffe rests on anchors")]
    NoIdentity,
}

/// One endpoint that is asked as long as the node runs.
pub(super) struct Poll {
    project: PathBuf,
    partner: BundlePartner,
    endpoint: BundleEndpoint,
    bundles: Bundles,
    identity: Option<Arc<tls::Identity>>,
    clock: Clock,
    answer_max: Duration,
}

/// The endpoints that the settings name.
pub(super) fn polls(
    project: &Path,
    state: &Path,
    settings: &Settings,
    identity: Option<&Arc<tls::Identity>>,
) -> Vec<Poll> {
    let poll = |partner: &BundlePartner| {
        Some(Poll {
            project: project.to_owned(),
            partner: partner.clone(),
            endpoint: partner.endpoint.clone()?,
            bundles: Bundles::of(state, settings),
            identity: identity.cloned(),
            clock: Clock::start(),
            answer_max: ANSWER_MAX,
        })
    };
    settings.identity.partners.iter().filter_map(poll).collect()
}

impl Poll {
    /// Whose endpoint it is.
    pub(super) const fn site(&self) -> &SiteId {
        &self.partner.site
    }

    /// Asks, waits, asks again. A failure waits as long as a success, so that it is never a loop.
    pub(super) async fn run(self) {
        let mut hint = None;
        let mut is_failing = false;
        loop {
            match self.once().await {
                Ok(wished) => {
                    hint = wished;
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(site = %self.partner.site, "the partner's bundle is confirmed again");
                    }
                }
                // Told once, and again after it has been well in between.
                Err(error) if !std::mem::replace(&mut is_failing, true) => self.tell(&error),
                Err(error) => tracing::debug!(site = %self.partner.site, %error, "still not confirmed"),
            }
            let pause = refresh_after(hint, self.partner.age_max);
            tokio::time::sleep(Duration::from_millis(pause.0)).await;
        }
    }

    fn tell(&self, error: &Failed) {
        let (site, endpoint) = (&self.partner.site, &self.endpoint.url);
        tracing::warn!(%site, %endpoint, %error, "the partner's bundle was not confirmed; what is known stays");
    }

    /// Fetches the bundle and takes it. Gives how soon the partner wishes to be asked again.
    async fn once(&self) -> Result<Option<Millis>, Failed> {
        let bundle = self.fetch().await?;
        let hint = bundle.refresh_hint;
        let (bundles, partner, now) = (self.bundles.clone(), self.partner.clone(), self.clock.now().wall);
        let take = move || bundles.take(&partner, bundle, Way::Endpoint, now);
        let taken = tokio::task::spawn_blocking(take).await;
        taken.map_err(|error| Failed::Call(error.to_string()))??;
        Ok(hint)
    }

    async fn fetch(&self) -> Result<Bundle, Failed> {
        let call = |error: reqwest::Error| Failed::Call(causes(&error));
        let client = reqwest::Client::builder().timeout(self.answer_max).connect_timeout(CONNECT_MAX).https_only(true);
        // Each time anew: the anchors may have changed, and an open connection would outlive them.
        let client = client.no_proxy().redirect(redirect::Policy::none()).tls_backend_preconfigured(self.tls()?);
        let client = client.build().map_err(call)?;
        let mut response =
            client.get(&self.endpoint.url).header(ACCEPT, "application/json").send().await.map_err(call)?;
        if response.status() != StatusCode::OK {
            return Err(Failed::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(call)? {
            body.extend_from_slice(&chunk);
            if BUNDLE_BYTES_MAX < body.len() {
                return Err(Failed::TooLong);
            }
        }
        Ok(parse(&body)?)
    }

    /// Whom the endpoint has to prove to be.
    fn tls(&self) -> Result<ClientConfig, Failed> {
        match &self.endpoint.proof {
            EndpointProof::Web(authorities) => Ok(certificates::client_by(&self.project.join(authorities))?),
            EndpointProof::Runtime(runtime) => {
                let identity = self.identity.as_ref().ok_or(Failed::NoIdentity)?;
                let config = tls::client(identity, runtime).map_err(KeyError::from)?;
                Ok(Arc::unwrap_or_clone(config))
            }
        }
    }
}

/// An error with what lies below it: the last of them says what happened, and of a handshake which rule ended it.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        if let Some(rule) = rule_of(cause) {
            return format!("{text}: {rule}");
        }
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}

/// The rule by which the endpoint's certificate was refused, in its own words.
fn rule_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return rule_of(error.get_ref()?);
    }
    let error = cause.downcast_ref::<rustls::Error>()?;
    if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(rule))) = error {
        return Some(rule.to_string());
    }
    Some(error.to_string())
}
