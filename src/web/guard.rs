//! Which names and pages this node answers to, decided before anything else, for unknown paths too.
//!
//! The Host allow-list is what stops DNS rebinding; it does not depend on the address that is listened on. Names are compared
//! byte for byte in lower case, the form that browsers send: `LOCALHOST` and `localhost.` are refused.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::header::{HOST, HeaderMap, HeaderName, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request};

use super::error::{Kind, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The exact Host headers that are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// The loopback names, the bound address unless it is a wildcard, and the further names.
    pub(crate) fn new(bound: SocketAddr, further: &[String]) -> Self {
        let port = bound.port();
        let mut all = Vec::new();
        let mut add = |name: &str| {
            all.push(name.to_owned());
            all.push(format!("{name}:{port}"));
        };
        ["localhost", "127.0.0.1", "[::1]"].into_iter().for_each(&mut add);
        match bound.ip() {
            ip if ip.is_unspecified() || ip.is_loopback() => {}
            std::net::IpAddr::V4(ip) => add(&ip.to_string()),
            std::net::IpAddr::V6(ip) => add(&format!("[{ip}]")),
        }
        for name in further.iter().map(|name| name.to_ascii_lowercase()) {
            if has_port(&name) { all.push(name) } else { all.extend([format!("{name}:{port}"), name]) }
        }
        Self(all)
    }

    /// Refuses a request for another name, from another page, or one that leaves its name in doubt.
    pub(crate) fn check(&self, request: &Request<Body>) -> Result<(), Problem> {
        let malformed = |detail: &str| Err(Problem::new(Kind::Malformed, detail));
        let headers = request.headers();
        check_framing(headers)?;
        let Some(host) = only(headers, &HOST) else {
            return malformed("wanted exactly one Host header");
        };
        if host.is_empty() {
            return malformed("wanted a name in the Host header");
        }
        let uri = request.uri();
        let is_absolute = uri.authority().is_some();
        if request.method() == Method::CONNECT || is_absolute != uri.scheme().is_some() || !uri.path().starts_with('/')
        {
            return malformed("wanted a path");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().as_bytes() != host.as_bytes()) {
            return malformed("the Host header and the request line name different hosts");
        }
        let Some(host) = self.0.iter().find(|known| known.as_bytes() == host.as_bytes()) else {
            let detail = "this Host is not on the allow-list; add it to runtime.web.hosts if it is yours";
            return Err(Problem::new(Kind::Forbidden, detail));
        };
        check_page(headers, host)
    }
}

fn has_port(name: &str) -> bool {
    let behind_address = name.rsplit_once(']').map_or(name, |(_, rest)| rest);
    behind_address.contains(':')
}

/// Refuses a body in any coding but chunks, and one whose coding is named twice: a proxy in front may read such a body to
/// another end than this node does. The rest of what is in doubt is refused by hyper.
fn check_framing(headers: &HeaderMap) -> Result<(), Problem> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if headers.contains_key(TRANSFER_ENCODING) && !only(headers, &TRANSFER_ENCODING).is_some_and(is_plain) {
        return Err(Problem::new(Kind::Framing, "wanted Transfer-Encoding: chunked, once, or none"));
    }
    Ok(())
}

/// Refuses a browser that asks on behalf of a page that is not this node's own. What is not a browser sends neither header.
fn check_page(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let foreign = || Problem::new(Kind::Forbidden, "asked by a page of another origin");
    if headers.contains_key(ORIGIN) {
        let origin = only(headers, &ORIGIN).and_then(|origin| origin.to_str().ok()).ok_or_else(foreign)?;
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if name != Some(host) {
            return Err(foreign());
        }
    }
    if headers.contains_key(&SEC_FETCH_SITE) {
        let site = only(headers, &SEC_FETCH_SITE).ok_or_else(foreign)?;
        if site != "same-origin" && site != "none" {
            return Err(foreign());
        }
    }
    Ok(())
}

/// A header's value if it is there exactly once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}
