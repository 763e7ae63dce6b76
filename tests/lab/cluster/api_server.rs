//! A running API server, with the store that it keeps its objects in.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::object::{self, Account};
use super::text;
use crate::authority::agents::ISSUER;
use crate::client::{Reply, request};
use crate::lab::Lab;
use crate::peers::peer;
use crate::place::Place;
use crate::plan::{Family, NodeName};
use crate::pod::Pod;
use crate::process::{Process, output};
use crate::wait::{SOON, eventually};

const PORT: u16 = 6443;

/// Where the store listens, within node B.
const STORE: &str = "http://127.0.0.1:2379";
const STORE_PEERS: &str = "http://127.0.0.1:2380";

/// The file of the key that signs the tokens of service accounts.
const KEY: &str = "accounts.key";

/// The token of one who may do everything.
const OPERATOR: &str = "operator";

/// `kube-apiserver` and `etcd` on node B, outside both nodes' control groups.
pub struct ApiServer {
    place: Place,
    directory: PathBuf,
    log: PathBuf,
    server: RefCell<Process>,
    _store: Process,
}

impl ApiServer {
    /// Starts it, empty.
    ///
    /// # Errors
    ///
    /// Where it does not come to serve.
    pub fn start(lab: &Lab) -> Result<Self> {
        let place = lab.observer(NodeName::B)?;
        let directory = lab.directory().join("cluster");
        fs::create_dir(&directory)?;
        let tokens = format!("{OPERATOR},operator,operator,system:masters\n");
        fs::write(directory.join("tokens.csv"), tokens)?;
        make_key(&directory.join(KEY))?;
        let store = Process::start(&mut store(&place, &directory)?, &lab.new_log("etcd")?)?;
        let log = lab.new_log("api-server")?;
        let server = Process::start(&mut command(&place, &directory)?, &log)?;
        let api = Self {
            place,
            directory,
            log,
            server: RefCell::new(server),
            _store: store,
        };
        api.wait_until_serving()?;
        Ok(api)
    }

    /// Kills it at once; the objects stay.
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub fn kill(&self) -> Result<()> {
        self.server.borrow_mut().end(Signal::SIGKILL).map(drop)
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// Where it does not come to serve.
    pub fn restart(&self) -> Result<()> {
        let mut command = command(&self.place, &self.directory)?;
        *self.server.borrow_mut() = Process::start(&mut command, &self.log)?;
        self.wait_until_serving()
    }

    /// Creates an object.
    ///
    /// # Errors
    ///
    /// Where it is refused.
    pub fn create(&self, object: &Value) -> Result<()> {
        let path = object::collection(object)?;
        self.send("POST", &path, object).map(drop)
    }

    /// Creates a service account, and its namespace where there is none.
    ///
    /// # Errors
    ///
    /// Where it is refused.
    pub fn create_account(&self, account: Account<'_>) -> Result<()> {
        let namespace = account.namespace;
        if self
            .get(&format!("/api/v1/namespaces/{namespace}"))
            .is_err()
        {
            self.create(&object::namespace(namespace))?;
        }
        self.create(&object::service_account(account))
    }

    /// Gives an account rights in the whole cluster: the rules of a ClusterRole.
    ///
    /// # Errors
    ///
    /// Where they are refused.
    pub fn allow(&self, account: Account<'_>, rules: &Value) -> Result<()> {
        let objects = object::role(account, rules);
        objects.iter().try_for_each(|object| self.create(object))
    }

    /// Deletes a pod at once.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn delete_pod(&self, pod: &Pod) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace(), pod.name());
        // Nobody else would tell that it has ended: no kubelet runs here.
        let at_once = json!({"gracePeriodSeconds": 0});
        self.send("DELETE", &path, &at_once).map(drop)
    }

    /// A token of an account for an audience, or for the API server itself where none is named;
    /// bound to an object, where one is given.
    ///
    /// # Errors
    ///
    /// Where none is given.
    pub fn token(
        &self,
        account: Account<'_>,
        audiences: &[&str],
        bound_to: Option<&Value>,
    ) -> Result<String> {
        let Account { namespace, name } = account;
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": 3600,
                "boundObjectRef": bound_to,
            },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let answer = self.send("POST", &path, &asked)?;
        Ok(text(&answer, "/status/token")?.to_owned())
    }

    /// The keys by which anybody can verify the tokens.
    ///
    /// # Errors
    ///
    /// Where it does not tell.
    pub fn published_keys(&self) -> Result<Value> {
        self.get("/openid/v1/jwks")
    }

    /// A kubeconfig of one who may do everything.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{}", address()),
                "certificate-authority": self.certificate(),
            }}],
            "users": [{"name": "lab", "user": {"token": OPERATOR}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        let file = self.directory.join("kubeconfig");
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// A command that becomes what follows it, as a pod of this account would see the cluster: by
    /// the files and the environment that a kubelet gives to it.
    ///
    /// # Errors
    ///
    /// Where the account gets no token.
    pub fn as_pod_of(&self, account: Account<'_>) -> Result<Vec<String>> {
        let mounted = self.directory.join(account.name);
        fs::create_dir(&mounted)?;
        fs::write(mounted.join("token"), self.token(account, &[], None)?)?;
        fs::copy(self.certificate(), mounted.join("ca.crt"))?;
        fs::write(mounted.join("namespace"), account.namespace)?;
        let mount = "mount -t tmpfs none /var && mkdir -p /var/run/secrets/kubernetes.io && \
            ln -s \"$0\" /var/run/secrets/kubernetes.io/serviceaccount && exec \"$@\"";
        let (host, port) = (address().ip(), address().port());
        Ok([
            &format!("KUBERNETES_SERVICE_HOST={host}"),
            &format!("KUBERNETES_SERVICE_PORT={port}"),
            "unshare",
            "--mount",
            "sh",
            "-c",
            mount,
            &mounted.display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec())
    }

    /// A token of somebody who is no service account.
    pub fn operators_token(&self) -> &'static str {
        OPERATOR
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.call(path, &["--request", "GET"])
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.call(path, &["--request", method, "--data", &body])
    }

    fn call(&self, path: &str, arguments: &[&str]) -> Result<Value> {
        let (certificate, url) = (self.certificate(), format!("https://{}{path}", address()));
        let certificate = certificate.to_string_lossy();
        let bearer = format!("Authorization: Bearer {OPERATOR}");
        let mut all = vec!["--cacert", &certificate, "--header", &bearer];
        all.extend(["--header", "Content-Type: application/json"]);
        all.extend(arguments);
        all.push(&url);
        match request(&self.place, &all)? {
            Reply::Answer(body) => serde_json::from_str(&body)
                .with_context(|| format!("the API server answers {body}")),
            other => bail!("{arguments:?} {path}: {other:?}"),
        }
    }

    fn wait_until_serving(&self) -> Result<()> {
        eventually(SOON, "the API server's own objects", || {
            self.get("/api/v1/namespaces/kube-system").ok().map(drop)
        })
        .with_context(|| self.server.borrow().log())
    }
}

fn address() -> SocketAddr {
    (NodeName::B.link_addresses().of(Family::V4), PORT).into()
}

/// A key to sign tokens with.
fn make_key(file: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["genrsa", "-out"]).arg(file).arg("2048");
    let made = output(&mut openssl)?;
    ensure!(made.status.success(), "openssl: {}", made.stderr);
    Ok(())
}

fn store(place: &Place, directory: &Path) -> Result<Command> {
    let mut command = place.command(peer("kubernetes/server")?)?;
    command
        .arg("--data-dir")
        .arg(directory.join("store"))
        .args(["--listen-client-urls", STORE])
        .args(["--advertise-client-urls", STORE])
        .args(["--listen-peer-urls", STORE_PEERS])
        .arg("--unsafe-no-fsync");
    Ok(command)
}

fn command(place: &Place, directory: &Path) -> Result<Command> {
    let mut command = place.command(peer("kubernetes/kube-apiserver")?)?;
    let key = directory.join(KEY);
    command
        .args(["--etcd-servers", STORE, "--bind-address"])
        .arg(address().ip().to_string())
        .args(["--secure-port", &PORT.to_string()])
        .arg("--cert-dir")
        .arg(directory.join("certificates"))
        .arg("--token-auth-file")
        .arg(directory.join("tokens.csv"))
        .args(["--authorization-mode", "RBAC"])
        .args(["--service-account-issuer", ISSUER])
        .arg("--service-account-key-file")
        .arg(&key)
        .arg("--service-account-signing-key-file")
        .arg(&key)
        .args(["--service-cluster-ip-range", "10.78.100.0/24"])
        // It tells of itself as an endpoint, which nobody here looks for.
        .args(["--endpoint-reconciler-type", "none"]);
    Ok(command)
}
