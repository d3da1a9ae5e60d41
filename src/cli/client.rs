//! A thin client of the HTTP API: what the commands can do is what the API can do.

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::cli::args::Reach;
use crate::cli::environment;
use crate::cli::exit::{self, Exit, Failure};
use crate::domain::identity::Fingerprint;
use crate::node::certificates;
use crate::settings;

/// How long an answer may take: the longest query budget and the write's half second, with room.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long one connection of a reader who follows may last.
const FOLLOW_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Where a running node leaves its addresses for its own command line.
pub const READY_FILE: &str = "state/ready.json";

/// Where a node keeps its local admin token, readable by its owner only.
pub const ADMIN_TOKEN_FILE: &str = "state/admin.token";

/// A node that answers HTTP.
#[derive(Debug)]
pub struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// Finds the node's address and the credential.
    pub fn reach(reach: &Reach) -> Result<Self, Failure> {
        let base = match (&reach.url, &reach.project) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(project)) => address_of(project)?,
            (None, None) => return Err(Failure::new(Exit::Usage, "wanted --project or --url")),
        };
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy();
        let http = if base.starts_with("https://") { http.tls_backend_preconfigured(tls_of(reach)?) } else { http };
        let http = http.build();
        let http = http.map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { base, token: find_token(reach)?, http })
    }

    /// The same node's admin listener. With an address, that is the address.
    pub fn reach_admin(reach: &Reach) -> Result<Self, Failure> {
        let mut client = Self::reach(reach)?;
        if let (None, Some(project)) = (&reach.url, &reach.project) {
            client.base = listener_of(project, "admin")?.ok_or_else(|| {
                let message = "the node has no admin listener (runtime.admin.enabled = false)";
                Failure::new(Exit::Unreachable, message)
            })?;
        }
        Ok(client)
    }

    /// Begins to read what goes on. `None` if it broke off before there was an answer, so that it may be tried again.
    pub async fn follow(&self, path: &str, last: Option<u64>) -> Result<Option<reqwest::Response>, Failure> {
        let request = self.http.get(format!("{}{path}", self.base)).timeout(FOLLOW_MAX);
        let request = request.header("accept", "application/x-ndjson");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let Ok(response) = request.send().await else { return Ok(None) };
        let status = response.status();
        if status.is_success() {
            return Ok(Some(response));
        }
        if status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS {
            return Ok(None);
        }
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        Err(refused(status.as_u16(), &parse(&text, &self.base)?))
    }

    /// Reads, and gives a header of the answer with it.
    pub async fn get_with(&self, path: &str, header: &str) -> Result<(Json, Option<String>), Failure> {
        let (body, headers) = self.exchange(self.http.get(format!("{}{path}", self.base))).await?;
        Ok((body, headers.get(header).and_then(|value| value.to_str().ok()).map(str::to_owned)))
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Result<Json, Failure> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Acts.
    pub async fn post(&self, path: &str, body: &Json) -> Result<Json, Failure> {
        self.send(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Json, Failure> {
        self.exchange(request).await.map(|(body, _)| body)
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<(Json, reqwest::header::HeaderMap), Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        let body = if text.is_empty() { Json::Null } else { parse(&text, &self.base)? };
        if status.is_success() { Ok((body, headers)) } else { Err(refused(status.as_u16(), &body)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::new(Exit::TimedOut, format!("{}: no answer in {} s", self.base, ANSWER_MAX.as_secs()));
        }
        Failure::new(Exit::Unreachable, format!("{}: cannot be reached: is the node running? ({error})", self.base))
    }
}

/// Whom an https address has to prove to be: whoever --ca says, or else the node of this project.
fn tls_of(reach: &Reach) -> Result<rustls::ClientConfig, Failure> {
    let wrong = |error: &dyn std::error::Error| Failure::new(Exit::Configuration, error.to_string());
    if let Some(path) = &reach.ca {
        return certificates::client_by(path).map_err(|error| wrong(&error));
    }
    let Some(project) = &reach.project else {
        return Err(Failure::new(Exit::Usage, "an https address wants --ca, the CA certificates to verify it by"));
    };
    if let Some(key) = own_key(project) {
        return certificates::client_of_key(key).map_err(|error| wrong(&error));
    }
    let settings = settings::load(project, environment()).map_err(|problems| wrong(&problems))?;
    certificates::own_client(project, &settings).map_err(|error| wrong(&error))
}

fn parse(text: &str, base: &str) -> Result<Json, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::failed(format!("{base}: wanted JSON: {error}")))
}

/// A problem+json body, or an error of the runs API, as a failure.
fn refused(status: u16, body: &Json) -> Failure {
    let text = |pointer: &str| body.pointer(pointer).and_then(Json::as_str);
    let code = text("/code").or_else(|| text("/error/type")).unwrap_or("failed");
    let message = ["/detail", "/title", "/error/message"].into_iter().find_map(text).unwrap_or("refused");
    let exit = match status {
        401 | 403 => Exit::Denied,
        409 => Exit::Conflict,
        _ => exit::of_code(code),
    };
    Failure::new(exit, format!("{code}: {message}"))
}

/// The key that the project's node proves, where it presents its own certificate. It has noted it in a folder that is its
/// owner's alone, so that a node is reached also when its settings or its certificate need repair.
fn own_key(project: &Path) -> Option<Fingerprint> {
    let ready: Json = serde_json::from_str(&std::fs::read_to_string(project.join(READY_FILE)).ok()?).ok()?;
    ready.get("web_key")?.as_str()?.parse().ok()
}

/// Where one of the listeners of a running project is.
fn listener_of(project: &Path, name: &str) -> Result<Option<String>, Failure> {
    let path = project.join(READY_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!("{}: {error}: is the node of this project running?", path.display());
        Failure::new(Exit::Unreachable, message)
    })?;
    let ready: Json = parse(&text, &path.display().to_string())?;
    Ok(ready.get(name).and_then(Json::as_str).map(str::to_owned))
}

fn address_of(project: &Path) -> Result<String, Failure> {
    listener_of(project, "web")?.ok_or_else(|| {
        let path = project.join(READY_FILE);
        let message = format!("{}: the node has no HTTP listener (runtime.web.enabled = false)", path.display());
        Failure::new(Exit::Unreachable, message)
    })
}

/// The token, from the first place that has one: the file named, the environment, the project's own.
fn find_token(reach: &Reach) -> Result<Option<String>, Failure> {
    if let Some(path) = &reach.token_file {
        return read_token(path).map(Some);
    }
    if let Ok(token) = std::env::var("TRUST_RUNTIME_TOKEN") {
        return Ok(Some(token));
    }
    match &reach.project {
        Some(project) if project.join(ADMIN_TOKEN_FILE).exists() => {
            read_token(&project.join(ADMIN_TOKEN_FILE)).map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))
}
