//! Two linked nodes of profile `plant`, and what they want of a caller.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use trust_runtime::tls;

use crate::stand::Outcome;
use crate::stand::http::Http;
use crate::stand::process::{Node, wait_until};
use crate::{connection, mesh_of, wait_for_peer};

/// Two linked nodes of profile `plant`, with certificates of an authority of their own.
pub(super) struct Plant {
    origin: Node,
    _target: Node,
    config: Arc<ClientConfig>,
    token: String,
}

impl Plant {
    pub(super) fn start(folder: &Path) -> Outcome<Self> {
        let folder = folder.join("plant");
        std::fs::create_dir_all(&folder)?;
        let ca = folder.join("ca").display().to_string();
        run(&["identity", "init-site", "--ca", &ca, "--site", "default-site"])?;
        let target = Self::node(&folder, "b", None)?;
        let origin = Self::node(&folder, "a", Some(&mesh_of(&target)))?;
        let project = folder.join("a").display().to_string();
        let create = ["token", "create", "--role", "engineer", "--actor", "engineer-1", "--expires-days", "1"];
        let made: Value = serde_json::from_slice(&run(&[&create[..], &["--json", "--project", &project]].concat())?)?;
        let authorities = CertificateDer::pem_file_iter(folder.join("ca/anchors-default-site.pem"))?;
        let config = Arc::new(tls::plain_client(authorities.collect::<Result<_, _>>()?)?);
        let token = made["token"].as_str().unwrap_or_default().to_owned();
        let plant = Self { origin, _target: target, config, token };
        wait_until("the token counts", || plant.http().ok()?.get("/api/runtime-cloud/state").ok())?;
        wait_for_peer(&mut plant.http()?, "b")?;
        Ok(plant)
    }

    /// A connection to the origin, with a credential.
    pub(super) fn http(&self) -> Outcome<Http> {
        let host = self.origin.address("web").trim_start_matches("https://").to_owned();
        let socket = TcpStream::connect(&host)?;
        socket.set_nodelay(true)?;
        let session = ClientConnection::new(Arc::clone(&self.config), ServerName::try_from("localhost")?)?;
        let credential = format!("Authorization: Bearer {}\r\n", self.token);
        Ok(Http::over(Box::new(StreamOwned::new(session, socket)), host, credential))
    }

    fn node(folder: &Path, name: &str, connect: Option<&str>) -> Outcome<Node> {
        let project = folder.join(name);
        let (ca, tls) = (folder.join("ca").display().to_string(), project.join("tls").display().to_string());
        let id = format!("default-site/{name}");
        let node = ["identity", "issue", "--ca", &ca, "--node", &id, "--ip", "127.0.0.1", "--dns", "localhost"];
        run(&[&node[..], &["--out", &tls]].concat())?;
        let connect = connection(connect);
        let settings = format!(
            "[bundle]\nversion = 1\n[resource]\nname = \"{name}\"\n\
             [runtime.identity]\nsource = \"files\"\nsvid_path = \"tls/node-{name}.pem\"\n\
             key_path = \"tls/node-{name}.key\"\n\
             anchors = [{{ site = \"default-site\", path = \"{ca}/anchors-default-site.pem\" }}]\n\
             [runtime.control]\nauth_token = \"5d0c9b7e41f24a8e9c3b6f7a2d1e8c40\"\n\
             [runtime.web]\nlisten = \"127.0.0.1:0\"\nauth = \"token\"\ntls = true\n\
             acts_per_s = 100000\n[runtime.tls]\nmode = \"self-managed\"\n[runtime.discovery]\nenabled = false\n\
             [runtime.mesh]\nlisten = \"127.0.0.1:0\"\nconnect = [{connect}]\ntls = true\n\
             [runtime.log]\nlevel = \"warn\"\n[runtime.cloud]\nprofile = \"plant\"\n"
        );
        Node::start(folder, name, &settings)
    }
}

/// What a command of the program prints.
fn run(arguments: &[&str]) -> Outcome<Vec<u8>> {
    let output = Command::new(env!("CARGO_BIN_EXE_trust-runtime")).args(arguments).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
