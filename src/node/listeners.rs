//! The listeners of HTTP: the public one, and the admins' one where it is enabled.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::node::{Error, Node, open_files};
use crate::settings::{self, Settings};
use crate::store::sqlite::SqliteStore;
use crate::web;

/// What the settings have opened; dropped without having served, it closes.
#[derive(Debug)]
pub(super) struct Listeners {
    web: Option<Listener>,
    admin: Option<Listener>,
}

#[derive(Debug)]
struct Listener {
    bound: web::Bound,
    options: web::Options,
}

impl Listeners {
    pub(super) async fn bind(
        settings: &Settings,
        credentials: &Arc<web::Credentials>,
        secure: Option<web::Secure>,
    ) -> Result<Self, Error> {
        let common = Common { settings, credentials, secure, limits: limits(settings) };
        let admin = settings.admin.enabled.then(|| common.admin());
        let web = settings.web.enabled.then(|| common.public());
        Ok(Self { admin: bind(admin).await?, web: bind(web).await? })
    }

    /// Where the public one and the admins' one are reached, with their scheme.
    pub(super) fn urls(&self) -> (Option<String>, Option<String>) {
        (self.web.as_ref().map(Listener::url), self.admin.as_ref().map(Listener::url))
    }

    /// Serves until `stop`, and then until the callers are answered.
    pub(super) fn serve(self, node: &Node, store: &Arc<SqliteStore>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let serve = |Listener { bound, options }| {
            let state = web::State { node: node.operations(), store: store.clone(), runs: Some(node.runs()), options };
            // Not tracked as work: it ends first, so that its requests are the work that is waited for.
            tokio::runtime::Handle::current().spawn(bound.serve(state, stop.clone()))
        };
        self.web.into_iter().chain(self.admin).map(serve).collect()
    }
}

impl Listener {
    fn url(&self) -> String {
        let scheme = if self.options.secure.is_some() { "https" } else { "http" };
        let mount = match &self.options.surface {
            web::Surface::Admin { mount } => mount,
            web::Surface::Public => "",
        };
        format!("{scheme}://{}{mount}", self.bound.addr())
    }
}

async fn bind(options: Option<web::Options>) -> Result<Option<Listener>, Error> {
    let Some(options) = options else { return Ok(None) };
    let address = options.listen;
    let bound = web::bind(&options).await.map_err(|source| Error::Web { address, source })?;
    Ok(Some(Listener { bound, options }))
}

/// What the settings allow and the number of open files has room for.
fn limits(settings: &Settings) -> web::Limits {
    let settings::Web { connections_max, streams_max, acts_per_s, reads_per_s, .. } = settings.web;
    let limits = web::Limits::for_files(open_files()).at_most(connections_max, streams_max);
    limits.of_each_second(acts_per_s, reads_per_s)
}

/// What both listeners have.
struct Common<'a> {
    settings: &'a Settings,
    credentials: &'a Arc<web::Credentials>,
    secure: Option<web::Secure>,
    limits: web::Limits,
}

impl Common<'_> {
    fn public(&self) -> web::Options {
        let Settings { web, control, .. } = self.settings;
        web::Options {
            listen: web.listen,
            hosts: web.hosts.clone(),
            auth: match web.auth {
                settings::WebAuth::Local => web::Auth::Local,
                settings::WebAuth::Token => web::Auth::Token,
            },
            credentials: Arc::clone(self.credentials),
            limits: self.limits,
            secure: self.secure.clone(),
            surface: web::Surface::Public,
            is_debug: control.mode == settings::ControlMode::Debug,
        }
    }

    /// Nobody is let in here without a credential, whatever the profile.
    fn admin(&self) -> web::Options {
        let admin = &self.settings.admin;
        web::Options {
            listen: admin.listen,
            auth: web::Auth::Token,
            surface: web::Surface::Admin { mount: admin.mount.clone() },
            ..self.public()
        }
    }
}
